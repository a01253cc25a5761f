"""Implicit regularisation: gradient descent picks the smallest solution, and the widest margin, without being asked.

Underdetermined least squares from 0, from a random start, and with Adam, beside the minimum-norm solution X⁺ y; and
logistic regression on separable data, whose direction turns towards that of the largest margin as 1/log t.
References: Soudry et al., *The implicit bias of gradient descent on separable data*, JMLR 19 (2018); Nacson et al.,
*Convergence of gradient descent on separable data*, AISTATS 2019 (normalised steps).
"""

import story

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import minimize

import admodes


def least_squares(s):
    """Paths on ½ |X w − y|² with 20 equations and 60 unknowns: distance to X⁺ y and norm of w after every step."""
    rng = s.rng(0)
    x, y = rng.standard_normal((20, 60)), rng.standard_normal(20)
    shortest = np.linalg.pinv(x) @ y
    start = 0.5 * rng.standard_normal(60)
    in_null_space = start - np.linalg.pinv(x) @ (x @ start)

    def loss(w, _, x, y):
        return 0.5 * jnp.sum((x @ w - y) ** 2)

    rate = 1 / np.linalg.norm(x, 2) ** 2
    runs = {
        "gradient descent from 0": (optax.sgd(rate), np.zeros(60)),
        "gradient descent, random start": (optax.sgd(rate), start),
        "Adam from 0": (optax.adam(optax.exponential_decay(0.01, 1000, 0.5)), np.zeros(60)),
    }
    paths = {}
    for name, (optimiser, w) in runs.items():
        both = admodes.value_and_grad(loss)

        def step(carry, _, optimiser=optimiser, both=both):
            w, state = carry
            value, gradient = both(w, None, x, y)
            updates, state = optimiser.update(gradient, state, w)
            return (optax.apply_updates(w, updates), state), (w, value)

        carry = jnp.asarray(w), optimiser.init(jnp.asarray(w))
        _, (ws, losses) = jax.jit(lambda c, step=step: jax.lax.scan(step, c, length=s.scaled(20, 6000, 50000)))(carry)
        paths[name] = np.linalg.norm(ws - shortest, axis=1), np.linalg.norm(ws, axis=1), np.asarray(losses)
    try:
        np.linalg.solve(x, y)
        refusal = ""
    except np.linalg.LinAlgError as error:
        refusal = str(error)
    return paths, np.linalg.norm(shortest), np.linalg.norm(in_null_space), refusal


def separable(rng, n=40, dimension=5):
    """Points y_i x_i on the positive side of a plane through 0, and the unit normal of the largest margin.

    The margin is the solution of min |w|² with w · z_i ≥ 1.
    """
    true = rng.standard_normal(dimension)
    x = rng.standard_normal((4 * n, dimension))
    x = x[np.abs(x @ true) > 0.5 * np.linalg.norm(true)][:n]
    z = x * np.sign(x @ true)[:, None]
    found = minimize(
        lambda w: 0.5 * w @ w,
        true,
        jac=lambda w: w,
        constraints={"type": "ineq", "fun": lambda w: z @ w - 1, "jac": lambda w: z},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    return z, found.x / np.linalg.norm(found.x)


def angles(z, direction, steps, rate, normalised, value_and_grad=admodes.value_and_grad):
    """The angle to ``direction`` (radians) and the loss at each of ``steps``, those of gradient descent from 0."""

    def loss(w, z):
        return jnp.mean(jax.nn.softplus(-z @ w))

    def log_loss(w, z):
        """The logarithm of the loss: its gradient has the same direction, and does not underflow with it."""
        u = -z @ w
        return jax.nn.logsumexp(jnp.where(u < -30, u, jnp.log(jax.nn.softplus(jnp.maximum(u, -30)))) - np.log(len(z)))

    both = value_and_grad(log_loss if normalised else loss)

    def step(w, z):
        value, g = both(w, z)
        return w - rate * (g / jnp.linalg.norm(g) if normalised else g), value

    @jax.jit
    def advance(w, value, count, z):
        return jax.lax.fori_loop(0, count, lambda _, carry: step(carry[0], z), (w, value))

    w, value, at, found = jnp.zeros(z.shape[1]), jnp.zeros(()), 0, []
    for t in steps:
        w, value = advance(w, value, int(t) - at, z)
        at = int(t)
        across = w - (w @ direction) * direction
        found.append((float(jnp.arctan2(jnp.linalg.norm(across), w @ direction)), float(value)))
    return np.array(found).T


def tell(s):
    paths, shortest, null_part, refusal = least_squares(s)
    s.table(
        "least-squares",
        [
            {"path": name, "distance_to_pinv": d[-1], "norm": n[-1], "loss": loss[-1]}
            for name, (d, n, loss) in paths.items()
        ],
    )
    z, direction = separable(s.rng(1))
    steps = np.unique(np.geomspace(1, s.scaled(100, 300_000, 3_000_000), 60).astype(int))
    rate = 4 / np.linalg.norm(z, 2) ** 2 * len(z)
    turning = {
        "gradient descent": angles(z, direction, steps, rate, False),
        "normalised gradient descent": angles(z, direction, steps, 0.1, True),
    }
    jaxs = angles(z, direction, steps, rate, False, jax.value_and_grad)
    s.table(
        "margin",
        [
            {"path": name, "step": t, "angle": a, "loss": v}
            for name, (angle, loss) in turning.items()
            for t, a, v in zip(steps, angle, loss)
        ],
    )

    figure, ((a, b), (c, d)) = story.panels(2, 2, width=5.4)
    for colour, (name, (distance, norm, _)) in zip(story.COLOURS, paths.items()):
        a.loglog(np.arange(1, len(distance) + 1), distance, color=colour, label=name)
        b.semilogx(np.arange(1, len(norm) + 1), norm, color=colour, label=name)
    a.axhline(null_part, color=story.BLACK, linestyle=":", label="the start's part in the null space")
    a.set(xlabel="step", ylabel="|w − X⁺ y|", title="20 equations, 60 unknowns")
    a.legend()
    b.axhline(shortest, color=story.BLACK, linestyle=":", label="|X⁺ y|")
    b.set(xlabel="step", ylabel="|w|", title="all three fit the data; one is the shortest", ylim=(0, None))
    b.legend()
    for colour, (name, (angle, _)) in zip(story.COLOURS, turning.items()):
        c.loglog(steps, angle, color=colour, label=name)
    scale = turning["gradient descent"][0][-1] * np.log(steps[-1])
    late = steps > 30
    c.loglog(steps[late], scale / np.log(steps[late]), color=story.BLACK, linestyle=":", label="∝ 1 / log t")
    c.set(xlabel="step t", ylabel="angle to the largest margin (radians)", title="logistic regression, separable data")
    c.legend()
    s.coincide(d, turning["gradient descent"][1], jaxs[1], "logistic regression")
    d.set_xlabel(f"record (up to {steps[-1]:,} steps)")
    distance = {name: path[0][-1] for name, path in paths.items()}
    s.figure(figure, "Gradient descent from 0 ends at the shortest solution and turns to the widest margin")

    fits = max(loss[-1] for *_, loss in paths.values())
    s.claim("all three paths fit the data", fits < 1e-10, f"largest loss {fits:.0e}")
    s.claim(
        "gradient descent from 0 finds X⁺ y",
        distance["gradient descent from 0"] < 1e-8,
        f"{distance['gradient descent from 0']:.0e} away",
    )
    s.claim("Adam does not", distance["Adam from 0"] > 0.01, f"{distance['Adam from 0']:.2f} away")
    random = distance["gradient descent, random start"]
    s.claim(
        "a random start keeps its part in the null space",
        abs(random / null_part - 1) < 1e-6,
        f"{random:.6f} away, the part is {null_part:.6f}",
    )
    s.claim("solve(X, y) is no way to X⁺ y: it needs a square X", bool(refusal), refusal or "it returned")
    ours, normalised = (found[0] for found in turning.values())
    half = np.searchsorted(steps, steps[-1] ** 0.5)
    products = ours[late] * np.log(steps[late])
    s.claim(
        "the angle of gradient descent falls, about as 1 / log t",
        ours[-1] < ours[half] and products[-1] < 2 * products.min(),
        f"{np.degrees(ours[half]):.2f}° at t = {steps[half]}, {np.degrees(ours[-1]):.2f}° at {steps[-1]}; angle times "
        f"log t between {products.min():.2f} and {products.max():.2f}",
    )
    s.claim("normalised steps are faster", normalised[-1] < 0.2 * ours[-1], f"{np.degrees(normalised[-1]):.4f}°")


if __name__ == "__main__":
    story.run(tell, x64=True)
