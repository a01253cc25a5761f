"""Accuracy: differences lose half the digits or more, AD loses none, and neither is a formula.

The error of difference quotients over the step, beside the complex step and AD; AD of a naive and of a stable
log(1 + exp(x)): AD differentiates the program that it is given, overflow and all; and the size of a derivative written
out as a formula beside that of the program AD makes of it.
"""

import story

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import Literal

import admodes

import data
import nets


def squire_trapp(x):
    """exp(x) / √(sin³x + cos³x), the test function of Squire and Trapp, SIAM Review 40 (1998) 110-112."""
    return jnp.exp(x) / jnp.sqrt(jnp.sin(x) ** 3 + jnp.cos(x) ** 3)


def reference(f, x):
    """f'(x) in long double by a complex step, whose error is below rounding; f is one of numpy's functions."""
    h = np.longdouble(1e-100)
    return (f(np.clongdouble(x + 1j * h)).imag) / h


def squire_trapp_long(z):
    return np.exp(z) / np.sqrt(np.sin(z) ** 3 + np.cos(z) ** 3)


QUOTIENTS = {
    "forward difference": lambda f, x, h: (f(x + h) - f(x)) / h,
    "central difference": lambda f, x, h: (f(x + h) - f(x - h)) / (2 * h),
    "complex step": lambda f, x, h: jnp.imag(f(x + 1j * h)) / h,
}
COLOURS = dict(zip(QUOTIENTS, (story.VERMILION, story.ORANGE, story.GREEN), strict=True))


def v_curves(x, exact, steps):
    """The relative errors over the step, and of AD, by dtype and method."""
    errors = {}
    for dtype in (np.float32, np.float64):
        at = dtype(x)
        for name, quotient in QUOTIENTS.items():
            values = jax.jit(jax.vmap(lambda h, q=quotient, a=at: q(squire_trapp, a, h)))(steps.astype(dtype))
            errors[dtype.__name__, name] = np.abs(np.asarray(values, float) / exact - 1)
        errors[dtype.__name__, "AD"] = abs(float(admodes.grad(squire_trapp)(at)) / exact - 1)
    return errors


def naive(x):
    return jnp.log(1 + jnp.exp(x))


def stable(x):
    """max(x, 0) + log(1 + exp(−|x|)), the same function without overflow."""
    return jnp.logaddexp(x, 0.0)


def logistic_map(n):
    """n steps of v ← 4 v (1 − v), the example of Baydin et al., JMLR 18 (2018), table 1."""

    def f(v):
        for _ in range(n):
            v = 4 * v * (1 - v)
        return v

    return f


def sizes(f):
    """Symbols of f written out as one formula, every name replaced by what it stands for; and lines as a program."""
    jaxpr = jax.make_jaxpr(f)(0.3).jaxpr
    length = {}
    for equation in jaxpr.eqns:
        length[equation.outvars[0]] = 1 + sum(
            1 if isinstance(v, Literal) else length.get(v, 1) for v in equation.invars
        )
    return length[jaxpr.outvars[0]], len(jaxpr.eqns)


def tell(s):
    x, steps = 1.5, np.logspace(-16, -0.5, s.scaled(12, 94, 200))
    exact = float(reference(squire_trapp_long, x))
    errors = v_curves(x, exact, steps)
    s.table(
        "differences",
        [
            {"dtype": dtype, "method": name, "step": h, "relative_error": e}
            for (dtype, name), line in errors.items()
            for h, e in (zip(steps, line) if name != "AD" else [(None, line)])
        ],
    )
    xs = np.linspace(-120, 120, s.scaled(7, 481, 2401), dtype=np.float32)
    slopes = {f.__name__: np.asarray(jax.vmap(admodes.grad(f))(xs)) for f in (naive, stable)}
    sigmoid = 1 / (1 + np.exp(-xs.astype(float)))
    s.table("softplus", [{"x": a, "naive": b, "stable": c} for a, b, c in zip(xs, *slopes.values())])
    counts = range(1, s.scaled(3, 13, 17))
    swell = [(n, *sizes(admodes.grad(logistic_map(n)))) for n in counts]
    s.table("swell", [{"steps": n, "formula": formula, "program": lines} for n, formula, lines in swell])
    losses = train(s)

    figure, ((left, right), (below, beside)) = story.panels(2, 2, width=5.4)
    for (dtype, name), line in errors.items():
        style = {"linestyle": "-" if dtype == "float64" else ":"}
        if name == "AD":
            left.axhline(max(line, 1e-17), color=story.BLUE, **style, label=f"AD, {dtype}")
        else:
            left.loglog(steps, np.maximum(line, 1e-17), color=COLOURS[name], **style, label=f"{name}, {dtype}")
    left.set(xlabel="step h", ylabel="relative error of f'(1.5)", ylim=(3e-18, 1e15), title="a V for each difference")
    left.legend(fontsize="x-small", ncols=2, loc="upper center")
    right.plot(xs, slopes["stable"], color=story.BLUE, linewidth=3.5, alpha=0.6, label="stable: logaddexp(x, 0)")
    right.plot(xs, slopes["naive"], color=story.VERMILION, linestyle="--", label="naive: log(1 + exp(x))")
    lost = xs[~np.isfinite(slopes["naive"])]
    if lost.size:
        right.axvspan(lost[0], lost[-1], color=story.VERMILION, alpha=0.12)
        right.annotate(f"naive: NaN\nfrom x = {lost[0]:.0f}", (lost[0] - 5, 0.45), color=story.VERMILION, ha="right")
    right.set(xlabel="x", ylabel="derivative of log(1 + exp(x))", title="AD of two programs, float32")
    right.legend(loc="upper left")
    below.semilogy(counts, [c[1] for c in swell], "s-", color=story.VERMILION, label="symbols of the formula")
    below.semilogy(counts, [c[2] for c in swell], "o-", color=story.BLUE, label="lines of AD's program")
    below.set(xlabel="steps of the logistic map", ylabel="size of the derivative", title="AD never writes the formula")
    below.legend()
    s.coincide(beside, losses["admodes"], losses["jax.grad"], "a perceptron, float32")
    beside.plot(losses["differences"], color=story.VERMILION, label="differences, h = 1e-4", linewidth=1.2)
    beside.legend()
    best = {key: np.nanmin(line) for key, line in errors.items()}
    f64 = {name: max(best["float64", name], 1e-17) for name in (*QUOTIENTS, "AD")}
    s.figure(
        figure,
        f"In float64 the best forward difference is off by {f64['forward difference']:.0e}, "
        f"the best central one by {f64['central difference']:.0e}, AD by {errors['float64', 'AD']:.2g}",
    )

    for dtype in (np.float32, np.float64):
        eps = float(np.finfo(dtype).eps)
        error = errors[dtype.__name__, "AD"]
        s.claim(f"AD is exact to rounding in {dtype.__name__}", error < 8 * eps, f"{error:.1e}, {error / eps:.1f} eps")
    s.claim(
        "the best forward difference keeps about half of the digits",
        1e-11 < f64["forward difference"] < 1e-7,
        f"{-np.log10(f64['forward difference']):.1f} of {-np.log10(np.finfo(float).eps):.1f} digits",
    )
    h = steps[np.nanargmin(errors["float64", "forward difference"])]
    s.claim("its step is near √eps", 1e-10 < h < 1e-6, f"h = {h:.0e}, √eps = 1.5e-08")
    tiny = errors["float64", "complex step"][steps < 1e-9].max()
    s.claim("the complex step has no V", tiny < 1e-14, f"error at most {tiny:.0e} for every h below 1e-9")
    s.claim(
        "AD of the naive log(1 + exp(x)) is NaN where exp overflows",
        bool(lost.size) and lost[0] < 90,
        f"from x = {lost[0] if lost.size else np.nan:.1f}; the true slope is 1",
    )
    gap = np.abs(slopes["stable"] - sigmoid).max()
    s.claim("AD of the stable one is right everywhere", gap < 1e-6, f"largest error {gap:.0e}")
    growth = swell[-1][1] / swell[-2][1], swell[-1][2] - swell[-2][2]
    s.claim(
        "AD is not symbolic: the formula grows by a factor per step, the program by a few lines",
        growth[0] > 1.8,
        f"{growth[0]:.1f} times against {growth[1]} lines; {swell[-1][1]:.1e} symbols or {swell[-1][2]} lines",
    )
    worst = abs(losses["differences"][-1] / losses["admodes"][-1] - 1)
    ours = abs(losses["admodes"][-1] / losses["jax.grad"][-1] - 1)
    s.claim(
        "training by differences in float32 strays further than AD does, even where it works",
        worst > 100 * ours,
        f"final loss off by {worst:.1%}, AD by {ours:.0e}; each gradient takes {losses['evaluations']} evaluations",
    )


def train(s):
    """Losses of a perceptron on digits by admodes, by jax.grad, and by forward differences in float32."""
    digits = data.digits(s.rng()).take(200)
    net = nets.MLP((64, 8, 10), "tanh")
    flat, unravel = jax.flatten_util.ravel_pytree(net.init(s.rng(2)))
    numbers = np.arange(s.scaled(3, 150, 1000))

    def loss(flat, step):
        return nets.cross_entropy(net(unravel(flat), digits.x), digits.y)

    def by_differences(loss, h=1e-4):
        def both(flat, step):
            value = loss(flat, step)
            moved = jax.vmap(lambda e: loss(flat + h * e, step))(jnp.eye(flat.size, dtype=flat.dtype))
            return value, (moved - value) / h

        return both

    engines = {"admodes": admodes.value_and_grad, "jax.grad": jax.value_and_grad, "differences": by_differences}
    optimiser, losses = optax.adam(0.01), {"evaluations": flat.size + 1}
    for name, engine in s.track(engines.items(), "training"):
        *_, found = jax.jit(nets.descend(loss, optimiser, engine))(flat, optimiser.init(flat), numbers)
        losses[name] = np.asarray(found)
    return losses


if __name__ == "__main__":
    story.run(tell, x64=True)
