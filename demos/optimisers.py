"""Optimisers: how much the step size matters, what momentum gains, where Adam goes wrong, and what scaling is worth.

Seven optimisers of optax over their step size on a 50-layer ResNet; the same gradients on a quadratic of condition
1000; the online problem on which Adam converges to the worst point; a step size chosen on a few hundred examples; and
gradient descent on data that is raw, centred, standardised and whitened.
"""

import story

import jax
import jax.numpy as jnp
import numpy as np
import optax

import admodes

import data
import nets

RATE = {  # constructors with a learning rate left open, and the range of rates that is tried: powers of ten
    "SGD": (lambda rate: optax.sgd(rate), (-3, 1)),
    "heavy ball": (lambda rate: optax.sgd(rate, 0.9), (-4, 0)),
    "Nesterov": (lambda rate: optax.sgd(rate, 0.9, nesterov=True), (-4, 0)),
    "AdaGrad": (lambda rate: optax.adagrad(rate), (-4, 0)),
    "RMSprop": (lambda rate: optax.rmsprop(rate), (-5, -1)),
    "Adam": (lambda rate: optax.adam(rate), (-5, -1)),
    "AMSGrad": (lambda rate: optax.amsgrad(rate), (-5, -1)),
}
COLOURS = dict(zip(RATE, story.COLOURS, strict=True))
MARKERS = dict(zip(RATE, "osD^v*P", strict=True))
BATCH = 64


def sweep(loss, make, rates, params, orders, *shared, value_and_grad=admodes.value_and_grad):
    """Losses (rates, orders, steps): every rate on every order of the examples, all trained at once."""
    optimiser = optax.inject_hyperparams(make)(rate=0.0)
    steps = nets.descend(loss, optimiser, value_and_grad)

    def run(rate, params, order, *shared):
        state = optimiser.init(params)
        state.hyperparams["rate"] = rate
        return steps(params, state, order, *shared)[2]

    alike = [None] * len(shared)
    every = jax.vmap(jax.vmap(run, (None, None, 0, *alike)), (0, None, None, *alike))
    return np.asarray(jax.jit(every)(jnp.asarray(rates, jnp.float32), params, orders, *shared))


def quadratic(condition, dimension=50):
    """f(x) = ½ Σ λ_i x_i² with λ from 1 to ``condition``, and its methods at the step sizes that theory gives.

    Reference: Polyak, *Some methods of speeding up the convergence of iteration methods*, 1964; Nesterov, *Lectures on
    convex optimization*, 2018, section 2.2.
    """
    eigenvalues = jnp.geomspace(1.0, condition, dimension)
    root = condition**0.5
    beta = (root - 1) / (root + 1)
    methods = {
        "gradient descent": optax.sgd(2 / (1 + condition)),
        "heavy ball": optax.sgd(4 / (root + 1) ** 2, beta**2),
        "Nesterov": optax.sgd(1 / condition, beta, nesterov=True),
    }
    return (lambda x, _: 0.5 * jnp.sum(eigenvalues * x * x)), jnp.ones(dimension), methods


def reddi(optimiser, steps, engine=admodes):
    """x_t on [−1, 1] for f_t(x) = 1010 x in every 101st step and −10 x otherwise, step size ∝ 1/√t.

    The sum over a period is 10 x: the best point is −1. Reference: Reddi, Kale and Kumar, *On the convergence of Adam
    and beyond*, ICLR 2018, section 5.
    """
    slope = engine.grad(lambda x, t: jnp.where(t % 101 == 1, 1010.0, -10.0) * x)

    def step(carry, t):
        x, state = carry
        updates, state = optimiser.update(slope(x, t), state, x)
        x = jnp.clip(optax.apply_updates(x, updates), -1.0, 1.0)
        return (x, state), x

    x = jnp.float32(0.0)
    return np.asarray(jax.jit(lambda: jax.lax.scan(step, (x, optimiser.init(x)), jnp.arange(1, steps + 1)))()[1])


def decaying(rate):
    return lambda count: rate / jnp.sqrt(count + 1.0)


def scalings(x):
    """The data as it is, centred, standardised (unit variances) and whitened (unit covariance, its null space out)."""
    centred = x - x.mean(0)
    deviation = centred.std(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    keep = values > 1e-6 * values[-1]
    white = centred @ vectors[:, keep] / np.sqrt(values[keep])
    standard = centred[:, deviation > 0] / deviation[deviation > 0]
    return {"raw pixels": x, "centred": centred, "standardised": standard, "whitened": white}


def softmax_regression(x, y, steps):
    """Losses of gradient descent from 0 at the step 1/L, with L = λ_max(XᵀX/n)/2 ≥ the largest curvature; and κ.

    Reference: Böhning, *Multinomial logistic regression algorithm*, Ann. Inst. Stat. Math. 44 (1992), the bound ½.
    """
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1).astype(np.float32)
    values = np.linalg.eigvalsh(x.T @ x / len(x))
    positive = values[values > 1e-6 * values[-1]]
    optimiser = optax.sgd(2 / float(values[-1]))
    run = jax.jit(nets.descend(lambda w, _, x, y: nets.cross_entropy(x @ w, y), optimiser))
    w = jnp.zeros((x.shape[1], 10), jnp.float32)
    *_, losses = run(w, optimiser.init(w), np.arange(steps), x, y)
    return np.asarray(losses), positive[-1] / positive[0]


def tell(s):
    digits = data.digits(s.rng())

    # A 50-layer net over the step size.
    net = nets.Deep(s.scaled(4, 50, 50), "resnet")
    order = data.batches(s.rng(1), len(digits.y), BATCH, s.scaled(1, 6, 30)).reshape(-1, BATCH)[
        : s.scaled(4, None, None)
    ]
    per_decade = s.scaled(0.5, 2, 4)
    params = net.init(s.rng(2))

    def deep(p, i, x, y):
        return nets.cross_entropy(net(p, x[i]), y[i])

    final, rows, curves = {}, [], {}
    for name, (make, (low, high)) in s.track(RATE.items(), "step sizes"):
        s.say(name)
        rates = np.logspace(low, high, round((high - low) * per_decade) + 1)
        losses = sweep(deep, make, rates, params, order[None], digits.x, digits.y)[:, 0]
        curves[name] = losses
        final[name] = rates, np.nan_to_num(losses[:, -20:].mean(1), nan=np.inf, posinf=np.inf)
        rows += [{"optimiser": name, "rate": r, "loss": v} for r, v in zip(*final[name])]
    s.table("rates", rows)
    best = int(np.argmin(final["Adam"][1]))
    make, rates = RATE["Adam"][0], final["Adam"][0]
    jaxs = sweep(deep, make, rates, params, order[None], digits.x, digits.y, value_and_grad=jax.value_and_grad)
    jaxs = jaxs[best, 0]

    # The quadratic.
    f, x0, methods = quadratic(1000.0)
    limit, target = s.scaled(50, 6000, 6000), 1e-6
    paths, iterations = {}, {}
    for name, optimiser in methods.items():
        *_, values = jax.jit(nets.descend(f, optimiser))(x0, optimiser.init(x0), np.arange(limit))
        paths[name] = np.asarray(values) / values[0]
        above = np.flatnonzero(paths[name] > target)
        iterations[name] = int(above[-1]) + 1
    s.table("quadratic", [{"method": name, "iterations": n} for name, n in iterations.items()])

    # Where Adam fails.
    horizon = s.scaled(500, 300_000, 3_000_000)
    online = {
        "Adam": reddi(optax.adam(decaying(0.5), b1=0.9, b2=0.99), horizon),
        "AMSGrad": reddi(optax.amsgrad(decaying(0.5), b1=0.9, b2=0.99), horizon),
        "SGD": reddi(optax.sgd(decaying(0.05)), horizon),
    }
    s.table("reddi", [{"optimiser": name, "last": x[-1], "mean": x.mean()} for name, x in online.items()])

    # A step size from a subsample (Bottou): one pass over few examples, then over all, in several random orders.
    shallow = nets.MLP((64, 32, 10))
    rates = np.logspace(-3, 1, s.scaled(3, 17, 33))
    few, batch = s.scaled(64, 320, 320), 16
    passes, orders = {}, s.scaled(1, 8, 32)
    for n in (few, len(digits.y)):
        order = data.batches(s.rng(3), n, batch, orders)
        loss = lambda p, i, x, y: nets.cross_entropy(shallow(p, x[i]), y[i])
        run = sweep(loss, RATE["SGD"][0], rates, shallow.init(s.rng(4)), order, digits.x, digits.y)
        passes[n] = np.nan_to_num(run[:, :, -8:].mean((1, 2)), nan=np.inf)
    s.table("bottou", [dict(zip(("rate", "few", "all"), v)) for v in zip(rates, *passes.values())])

    # Scaled data.
    raw = data.digits(s.rng(), raw=True)
    regression = {name: softmax_regression(x, raw.y, s.scaled(5, 500, 5000)) for name, x in scalings(raw.x).items()}
    s.table("scaling", [{"data": name, "condition": k, "loss": loss[-1]} for name, (loss, k) in regression.items()])

    figure, ((a, b, c), (d, e, f)) = story.panels(2, 3)
    for name, (rate, loss) in final.items():
        a.semilogx(rate, np.minimum(loss, 3), marker=MARKERS[name], markersize=4, color=COLOURS[name], label=name)
    a.set(xlabel="step size", ylabel="loss, mean of the last 20 steps (cut at 3)", ylim=(0, 4.3))
    a.set_title(f"{net.depth}-layer ResNet, {len(jaxs)} steps")
    a.legend(ncols=3, loc="upper center")
    for colour, (name, path) in zip(story.COLOURS, paths.items()):
        b.loglog(np.arange(1, limit + 1), np.maximum(path, 1e-9), color=colour, label=f"{name}: {iterations[name]:,}")
    b.axhline(target, color="grey", linestyle=":", linewidth=1)
    b.set(
        xlabel="iteration",
        ylabel="f(x) / f(x₀)",
        ylim=(1e-8, 30),
        title="quadratic, κ = 1000: iterations to 1e-6",
    )
    b.legend(loc="lower left")
    for colour, (name, x) in zip(story.COLOURS[1:], online.items()):
        periods = x[: len(x) // 101 * 101].reshape(-1, 101).mean(1)
        c.semilogx(101 * np.arange(1, len(periods) + 1), periods, color=colour, label=name)
    c.set(xlabel="step t", ylabel="x, mean over a period", ylim=(-1.2, 1.2), title="the online problem of Reddi et al.")
    c.annotate("worst point", (101, 1.05), color="grey")
    c.annotate("best point", (101, -1.15), color="grey")
    c.legend(loc="center right")
    for (n, loss), colour, style in zip(passes.items(), (story.ORANGE, story.BLUE), ("--", "-")):
        d.semilogx(rates, np.minimum(loss, 3), style, color=colour, marker="o", markersize=4, label=f"{n} examples")
        d.axvline(rates[np.argmin(loss)], color=colour, linestyle=":", linewidth=1.2)
    d.set(xlabel="step size of SGD", ylabel="loss after one pass (cut at 3)", title="a step size from a subsample")
    d.legend()
    for colour, (name, (loss, k)) in zip(story.COLOURS, regression.items()):
        e.loglog(np.arange(1, len(loss) + 1), loss, color=colour, label=f"{name}, κ = {k:.0e}")
    e.set(xlabel="iteration, step 1/L", ylabel="training loss", title="softmax regression on digits")
    e.legend()
    s.coincide(f, curves["Adam"][best], jaxs, f"{net.depth}-layer ResNet, Adam")
    faster = iterations["gradient descent"] / iterations["Nesterov"]
    s.figure(figure, f"At κ = 1000 Nesterov needs {faster:.0f} times fewer steps; Adam can walk to the worst point")

    def width(name):
        """Powers of ten of the step sizes whose loss stays below 1."""
        rate, loss = final[name]
        return np.sum(loss < 1) * np.log10(rate[1] / rate[0])

    s.table("tolerance", [{"optimiser": name, "powers_of_ten": width(name)} for name in RATE])
    s.claim(
        "every optimiser trains the deep net at some step size, and none at all of them",
        all(min(v) < 0.5 and max(v) > 1 for _, v in final.values()),
        ", ".join(f"{name} {min(v):.2f}" for name, (_, v) in final.items()),
    )
    s.claim(
        "gradient descent needs about ten times the iterations of momentum at condition 1000",
        iterations["gradient descent"] > 10 * max(iterations["heavy ball"], iterations["Nesterov"]),
        ", ".join(f"{name} {n}" for name, n in iterations.items()),
    )
    ends = {name: x[-101:].mean() for name, x in online.items()}
    s.claim(
        "Adam goes to the worst point, AMSGrad and SGD to the best",
        ends["Adam"] > 0.9 and ends["AMSGrad"] < -0.9 and ends["SGD"] < -0.9,
        ", ".join(f"{name} {x:+.2f}" for name, x in ends.items()) + f" after {horizon:,} steps",
    )
    chosen, right = (rates[np.argmin(loss)] for loss in passes.values())
    full = passes[len(digits.y)]
    loss = full[np.argmin(passes[few])]
    s.claim(
        f"a step size chosen on {few} examples serves for all {len(digits.y)}",
        loss < 2 * full.min(),
        f"{chosen:.2g} against the best {right:.2g}: loss {loss:.3f} against {full.min():.3f}",
    )
    last = {name: curve[-1] for name, (curve, _) in regression.items()}
    s.claim(
        "centring makes gradient descent faster, whitening again; standardising alone does little for these pixels",
        last["raw pixels"] > 1.5 * last["centred"] > 1.5**2 * last["whitened"],
        ", ".join(f"{name} {v:.4f}" for name, v in last.items()),
    )


if __name__ == "__main__":
    story.run(tell)
