"""Samples: through a sample one may differentiate (pathwise) or around it (score function); jax.grad may say 0.

Estimators of the gradient of E f(z), z = θ + ε: pathwise f'(z), and score function f(z) ε, without and with a baseline.
Their variance over the dimension, a step function and a fast oscillation where pathwise fails, and draws of discrete
variables, whose gradient JAX gives as 0 without a word.
"""

import story

import jax
import jax.numpy as jnp
import numpy as np
import optax

import admodes

import nets

ESTIMATORS = ("pathwise", "score function", "score function with baseline")
COLOURS = dict(zip(ESTIMATORS, (story.BLUE, story.VERMILION, story.GREEN), strict=True))
MARKERS = dict(zip(ESTIMATORS, "os^", strict=True))


def square(z):
    """f(z) = |z|², whose mean has the gradient 2 θ."""
    return jnp.sum(z * z)


def positive(z):
    """f(z) = 1 for z > 0, else 0, whose mean has the density of the normal distribution at θ as its gradient."""
    return jnp.sum(jnp.where(z > 0, 1.0, 0.0))


def estimates(f, theta, noise):
    """The three estimates of ∇ E f(θ + ε) for each row of noise ε, standard normal.

    The score is ∇_θ log p(z; θ) = z − θ, by our tape; the baseline is the mean of f over the other rows, so that the
    estimate stays unbiased (Kool et al., *Buy 4 REINFORCE samples, get a baseline for free!*, 2019).
    """

    def log_density(theta, z):
        return -0.5 * jnp.sum((z - theta) ** 2)

    z = theta + noise
    values = jax.vmap(f)(z)
    scores = jax.vmap(admodes.grad(log_density), (None, 0))(theta, z)
    others = (jnp.sum(values) - values) / (len(noise) - 1)
    pathwise = jax.vmap(admodes.grad(lambda theta, noise: f(theta + noise)), (None, 0))(theta, noise)
    return pathwise, values[:, None] * scores, (values - others)[:, None] * scores


def discrete_losses():
    """E(p) written as the mean of draws, its true derivative, for one parameter p = 0.3 each."""

    def bernoulli(p, key):
        return jnp.mean(3.0 * jax.random.bernoulli(key, p, (1000,)))

    def categorical(p, key):
        draws = jax.random.categorical(key, jnp.log(jnp.stack([1 - p, p])), shape=(1000,))
        return jnp.mean(jnp.asarray([1.0, 4.0])[draws])

    def poisson(p, key):
        return jnp.mean(jax.random.poisson(key, p, (1000,)).astype(p.dtype))

    return {"bernoulli": (bernoulli, 3.0), "categorical": (categorical, 3.0), "poisson": (poisson, 1.0)}


def tell(s):
    samples = s.scaled(200, 10000, 100000)
    dimensions = s.scaled((1, 4), (1, 2, 4, 8, 16, 32, 64, 128), (1, 2, 4, 8, 16, 32, 64, 128, 256))
    rows, spread = [], {name: [] for name in ESTIMATORS}
    for d in s.track(dimensions, "dimensions"):
        theta = jnp.full(d, 0.5)
        noise = jnp.asarray(s.rng(d).standard_normal((samples, d)))
        for name, values in zip(ESTIMATORS, jax.jit(estimates, static_argnums=0)(square, theta, noise)):
            variance = float(jnp.sum(jnp.var(values, axis=0)))
            off = float(jnp.linalg.norm(jnp.mean(values, axis=0) - 2 * theta)) / np.sqrt(variance / samples)
            spread[name].append(variance)
            rows.append({"dimension": d, "estimator": name, "variance": variance, "standard_errors_off": off})
    s.table("variance", rows)

    thetas = np.linspace(-2.5, 2.5, s.scaled(5, 41, 101))
    noise = jnp.asarray(s.rng(0).standard_normal((samples, 1)))
    along = jax.jit(
        jax.vmap(lambda f, t: [e.mean() for e in estimates(f, t[None], noise)], (None, 0)), static_argnums=0
    )
    step = dict(zip(ESTIMATORS, map(np.asarray, along(lambda z: jnp.sum(jnp.where(z > 0, 1.0, 0.0)), thetas))))
    truth = np.exp(-(thetas**2) / 2) / np.sqrt(2 * np.pi)
    s.table(
        "step",
        [{"theta": t, "true": g, **{n: step[n][k] for n in ESTIMATORS}} for k, (t, g) in enumerate(zip(thetas, truth))],
    )

    frequencies = s.scaled((1.0, 30.0), tuple(np.geomspace(0.5, 100, 12)), tuple(np.geomspace(0.5, 1000, 24)))
    waves = []
    wave = jax.jit(
        lambda w: [jnp.var(e) for e in estimates(lambda z: jnp.sum(jnp.sin(w * z)), jnp.full(1, 0.5), noise)]
    )
    for w in frequencies:
        waves.append(list(map(float, wave(w))))
    s.table("oscillation", [{"omega": w, **dict(zip(ESTIMATORS, v))} for w, v in zip(frequencies, waves)])

    discrete = []
    for name, (loss, true) in discrete_losses().items():
        draws = [float(g(loss)(jnp.float32(0.3), jax.random.key(s.seed))) for g in (jax.grad, admodes.grad)]
        discrete.append({"distribution": name, "true": true, "jax.grad": draws[0], "admodes.grad": draws[1]})
    s.table("discrete", discrete)
    score = score_of_bernoulli(s.rng(1), samples)
    losses = {name: fit(s, engine) for name, engine in (("admodes", admodes), ("jax", jax))}

    figure, ((a, b, c), (d, e, f)) = story.panels(2, 3)
    for name in ESTIMATORS:
        a.loglog(dimensions, spread[name], marker=MARKERS[name], color=COLOURS[name], label=name)
    a.set(xlabel="dimension d", ylabel="variance from one sample", title="f(z) = |z|²: variance over dimension")
    a.legend()
    b.plot(thetas, truth, color=story.BLACK, linewidth=4, alpha=0.3, label="true gradient")
    for name in (ESTIMATORS[0], ESTIMATORS[2]):
        b.plot(thetas, step[name], marker=MARKERS[name], markersize=3, linewidth=1, color=COLOURS[name], label=name)
    b.set(xlabel="θ", ylabel="gradient of P(θ + ε > 0)", ylim=(-0.03, 0.62), title="a step: pathwise says 0")
    b.legend(loc="upper left")
    for k, name in enumerate(ESTIMATORS):
        c.loglog(frequencies, [v[k] for v in waves], marker=MARKERS[name], color=COLOURS[name], label=name)
    c.set(xlabel="frequency ω", ylabel="variance from one sample", title="f(z) = sin(ω z): pathwise grows as ω²")
    c.legend()
    at = np.arange(len(discrete))
    for k, (key, colour) in enumerate(
        (("true", story.BLACK), ("jax.grad", story.VERMILION), ("admodes.grad", story.BLUE))
    ):
        bars = d.bar(at + 0.27 * (k - 1), [r[key] for r in discrete], 0.25, color=colour, label=key)
        d.bar_label(bars, fmt="%.3g", fontsize="small")
    d.set_xticks(at, [r["distribution"] for r in discrete])
    d.set(ylabel="derivative of the mean", ylim=(0, 4.4), title="draws of discrete variables: a silent 0")
    d.legend(ncols=3, loc="upper center", fontsize="x-small")
    e.hist(score, bins=np.arange(score.min() - 0.05, score.max() + 0.1, 0.1), color=story.GREEN, alpha=0.7)
    e.axvline(3.0, color=story.BLACK, linestyle="--", label="true derivative 3")
    e.axvline(score.mean(), color=story.GREEN, label=f"mean {score.mean():.3f}")
    e.set(xlabel="estimate from 100 draws", ylabel="number of estimates", title="bernoulli by the score function")
    e.legend()
    s.coincide(f, losses["admodes"], losses["jax"], "pathwise fit of a normal, 50 variables")
    last = dimensions[-1]
    factor = spread["score function"][-1] / spread["pathwise"][-1]
    s.figure(
        figure,
        f"In {last} dimensions the score function needs {factor:,.0f} times the samples that pathwise needs",
    )

    slope = {name: np.polyfit(np.log(dimensions[-3:]), np.log(spread[name][-3:]), 1)[0] for name in ESTIMATORS}
    worst = max(r["standard_errors_off"] for r in rows)
    s.claim("all three estimators are unbiased", worst < 4, f"at most {worst:.1f} standard errors off")
    s.claim(
        "variance grows as d pathwise, as d³ by the score function, as d² with a baseline",
        abs(slope["pathwise"] - 1) < 0.15
        and abs(slope["score function"] - 3) < 0.25
        and abs(slope["score function with baseline"] - 2) < 0.25,
        ", ".join(f"{name} d^{v:.2f}" for name, v in slope.items()),
    )
    flat = np.abs(step["pathwise"]).max()
    off = np.abs(step[ESTIMATORS[2]] - truth).max()
    s.claim("pathwise sees nothing of a step", flat == 0, f"exactly {flat:g}; the score function is within {off:.3f}")
    s.claim("the score function sees it", off < 0.05, f"largest error {off:.3f} of {truth.max():.3f}")
    growth = np.polyfit(np.log(frequencies[-4:]), np.log([v[0] for v in waves[-4:]]), 1)[0]
    s.claim(
        "pathwise variance grows as ω² on an oscillation, the score function's is bounded",
        abs(growth - 2) < 0.1 and waves[-1][1] < 2,
        f"ω^{growth:.2f}; {waves[-1][0]:.0f} against {waves[-1][1]:.2f} at ω = {frequencies[-1]:.0f}",
    )
    s.claim(
        "jax.grad through draws of discrete variables is silently 0 (and so is ours: a draw is a step function)",
        all(r["jax.grad"] == 0 == r["admodes.grad"] for r in discrete),
        ", ".join(f"{r['distribution']} {r['jax.grad']:g} instead of {r['true']:g}" for r in discrete),
    )
    error = score.std() / np.sqrt(len(score))
    s.claim(
        "the score function gives the derivative",
        abs(score.mean() - 3) < 4 * error,
        f"{score.mean():.3f} ± {error:.3f}",
    )


def score_of_bernoulli(rng, samples):
    """Estimates of d/dp E[3 b] = 3, b Bernoulli(p) at p = 0.3, each the mean of 3 b ∂ log P(b; p)/∂p over 100 draws."""
    draws = jnp.asarray(rng.random((samples // 20, 100)) < 0.3, jnp.float32)
    score = admodes.grad(lambda p, b: b * jnp.log(p) + (1 - b) * jnp.log1p(-p))
    each = jax.vmap(jax.vmap(score, (None, 0)), (None, 0))(jnp.float32(0.3), draws)
    return np.asarray(jnp.mean(3.0 * draws * each, axis=1))


def fit(s, engine):
    """Losses of maximising a variational bound by pathwise gradients, the draws of step k from key k."""
    dimension = s.scaled(3, 50, 200)
    scale = jnp.asarray(np.geomspace(0.2, 2.0, dimension))

    def bound(params, key):
        z = params["mean"] + jnp.exp(params["log_std"]) * jax.random.normal(key, (16, dimension))
        energy = 0.5 * jnp.mean(jnp.sum(((z - 1.0) / scale) ** 2, axis=-1))
        return energy - jnp.sum(params["log_std"])

    params = {"mean": jnp.zeros(dimension), "log_std": jnp.zeros(dimension)}
    steps = jax.jit(nets.descend(bound, optimiser := optax.adam(0.02), engine.value_and_grad))
    *_, losses = steps(params, optimiser.init(params), jax.random.split(s.key(), s.scaled(3, 500, 2000)))
    return np.asarray(losses)


if __name__ == "__main__":
    story.run(tell)
