"""Double descent: the test error peaks where the width reaches the number of examples, and falls again beyond.

Least squares on random relu features of digits with a tenth of the labels wrong: the minimum-norm solution over the
width, its norm, the same with a ridge, and what gradient descent from 0 reaches in a given number of steps.
References: Belkin, Hsu, Ma and Mandal, *Reconciling modern machine-learning practice and the bias-variance trade-off*,
PNAS 116 (2019); Advani, Saxe and Sompolinsky, *High-dimensional dynamics of generalization error*, 2020.
"""

import story

import jax
import jax.numpy as jnp
import numpy as np
import optax
from threadpoolctl import threadpool_limits

import admodes

import data
import nets


def features(rng, x, widths):
    """Random relu features relu(x V) of each width; the narrower ones are the first columns of the widest."""
    v = rng.standard_normal((x.shape[1], max(widths))) / np.sqrt(x.shape[1])
    return np.maximum(x @ v, 0)


def solutions(phi, targets, ridges):
    """Weights of min |Φ W − T|² + ridge n |W|² for each ridge, by singular values; ridge 0 gives the minimum norm."""
    with threadpool_limits(1):  # more threads only wait for each other at these sizes
        u, values, vt = np.linalg.svd(phi, full_matrices=False)
    keep = values > 1e-10 * values[0]
    u, values, vt = u[:, keep], values[keep], vt[keep]
    return [vt.T @ ((values / (values**2 + ridge * len(phi)))[:, None] * (u.T @ targets)) for ridge in ridges]


def error(phi, w, labels):
    return float(np.mean(np.argmax(phi @ w, axis=1) != labels))


def descend(phi, targets, steps, value_and_grad=admodes.value_and_grad):
    """Gradient descent with momentum from 0 at the step 1/L: weights and losses."""
    optimiser = optax.sgd(1 / np.linalg.norm(phi, 2) ** 2, 0.95)
    run = jax.jit(nets.descend(lambda w, _, phi, t: 0.5 * jnp.sum((phi @ w - t) ** 2), optimiser, value_and_grad))
    w = jnp.zeros((phi.shape[1], targets.shape[1]))
    w, _, losses = run(w, optimiser.init(w), np.arange(steps), phi, targets)
    return np.asarray(w), np.asarray(losses)


def tell(s):
    n, seeds = s.scaled(40, 200, 400), s.scaled(1, 3, 10)
    ratios = s.scaled((0.5, 1.0, 2.0), (0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0), None)
    if ratios is None:
        ratios = tuple(np.unique(np.round(np.concatenate([np.geomspace(0.05, 20, 24), np.linspace(0.8, 1.25, 10)]), 3)))
    widths = [max(2, round(r * n)) for r in ratios]
    trained = s.scaled((1.0,), (0.4, 1.0, 3.0), (0.4, 0.8, 1.0, 1.25, 3.0, 10.0))
    steps, ridge = s.scaled(20, 2000, 20000), 1e-2

    rows, curves = [], {}
    for seed in s.track(range(seeds), "seeds"):
        split = data.digits(s.rng(0, seed)).take(n).corrupted(0.1, s.rng(1, seed))
        x, x_test = split.x.astype(float), split.x_test.astype(float)
        targets = np.eye(10)[split.y] - 0.1
        both = features(s.rng(2, seed), np.concatenate([x, x_test]), widths)
        for ratio, width in zip(ratios, widths):
            phi, test = (block[:, :width] / np.sqrt(width) for block in (both[:n], both[n:]))
            methods = dict(zip(("minimum norm", "ridge"), solutions(phi, targets, (0.0, ridge))))
            if ratio in trained:
                s.say(f"training, width {width}")
                methods["gradient descent"], losses = descend(phi, targets, steps)
                if seed == 0:
                    curves[ratio] = phi, targets, losses
            for name, w in methods.items():
                scores = error(test, w, split.y_test), error(phi, w, split.y), np.linalg.norm(w)
                keys = ("ratio", "width", "seed", "method", "test_error", "training_error", "norm")
                rows.append(dict(zip(keys, (ratio, width, seed, name, *scores))))
    s.table("widths", rows)

    def curve(method, what):
        """(ratios, values by seed)."""
        mine = [r for r in rows if r["method"] == method]
        at = np.unique([r["ratio"] for r in mine])
        return at, np.array([[r[what] for r in mine if r["ratio"] == x] for x in at])

    middle = trained[len(trained) // 2 - (len(trained) % 2 == 0)]
    phi, targets, losses = curves[middle]
    _, jaxs = descend(phi, targets, steps, jax.value_and_grad)

    figure, (a, b, c) = story.panels(1, 3)
    styles = {
        "minimum norm": {"color": story.VERMILION, "marker": "o", "markersize": 4},
        "ridge": {"color": story.BLUE, "marker": "o", "markersize": 4},
        "gradient descent": {"color": story.GREEN, "marker": "D", "markersize": 8, "linestyle": "none"},
    }
    for name, style in styles.items():
        for axes, what, factor in ((a, "test_error", 100), (b, "norm", 1)):
            at, values = curve(name, what)
            label = f"{name}, {steps} steps" if name == "gradient descent" else name
            axes.plot(at, factor * values.mean(1), label=label, **style)
            if name != "gradient descent":
                axes.fill_between(at, factor * values.min(1), factor * values.max(1), color=style["color"], alpha=0.15)
    at, values = curve("minimum norm", "training_error")
    a.plot(at, 100 * values.mean(1), color="grey", linestyle="--", label="minimum norm, training")
    for axes in (a, b):
        axes.axvline(1, color="grey", linestyle=":", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlabel("width / number of examples")
    a.set(ylabel="error in %", ylim=(0, None), title=f"{n} digits, 10% wrong labels, {seeds} seeds")
    b.set(ylabel="norm of the weights", yscale="log", title="the norm peaks where the error does")
    a.legend(loc="upper left", fontsize="x-small")
    b.legend(loc="upper left", fontsize="x-small")
    s.coincide(c, losses, jaxs, f"last layer of width {phi.shape[1]}")
    at, values = curve("minimum norm", "test_error")
    mean = values.mean(1)
    top = int(np.argmax(mean[at > 0.3]) + np.sum(at <= 0.3))
    narrow, peak, wide = mean[at < 1].min(), mean[top], mean[-1]
    s.figure(
        figure,
        f"Test error: {narrow:.0%} below ratio 1, {peak:.0%} at ratio {at[top]:g}, {wide:.0%} at {at[-1]:g}",
    )

    s.claim("the test error peaks where the features can just fit", 0.7 < at[top] < 1.3, f"at ratio {at[top]:g}")
    s.claim(
        "it falls again beyond, below the best narrow model",
        wide < narrow < 0.7 * peak,
        f"{narrow:.1%}, {peak:.1%}, {wide:.1%}",
    )
    norms = curve("minimum norm", "norm")[1].mean(1)
    largest = at[np.argmax(norms)]
    s.claim("the norm of the weights peaks there too", 0.7 < largest < 1.3, f"at ratio {largest:g}")
    smooth = curve("ridge", "test_error")[1].mean(1)
    rise = np.max(smooth - np.minimum.accumulate(smooth))
    s.claim("a ridge removes the peak", rise < 0.03, f"largest rise {rise:.1%}, {peak - narrow:.1%} without")
    at_gd, gd = curve("gradient descent", "test_error")
    limit = dict(zip(at, mean))
    gap = abs(gd[-1].mean() - limit[at_gd[-1]])
    s.claim(
        "gradient descent from 0 reaches the minimum-norm solution of a wide model",
        gap < 0.02,
        f"test errors differ by {gap:.1%} at ratio {at_gd[-1]:g}",
    )
    one = gd[list(at_gd).index(1.0)].mean()
    s.claim(
        "at the peak gradient descent has not got there: stopping early acts as a ridge",
        one < 0.8 * limit[1.0],
        f"{one:.1%} after {steps} steps, {limit[1.0]:.1%} in the limit",
    )


if __name__ == "__main__":
    story.run(tell, x64=True)
