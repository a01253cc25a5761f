"""Higher: nesting doubles the program with each order, a power series adds a few lines.

Time, compilation and size of the n-th derivative of a formula, by Taylor mode and by nested forward mode; and u'' = -u
on [0, 3], solved by a net whose loss holds its second derivative.
"""

import time

import story

import jax
import jax.numpy as jnp
import numpy as np
import optax

import admodes

import nets

TIMES = 5


def formula(x):
    return jnp.exp(jnp.sin(x) * x) / (1.5 + jnp.cos(x)) + jnp.tanh(x) * jnp.sqrt(1 + x * x)


def by_series(order):
    return jax.vmap(admodes.derivative(formula, order))


def by_nesting(order):
    fun = formula
    for _ in range(order):
        fun = lambda x, f=fun: jax.jvp(f, (x,), (jnp.ones_like(x),))[1]
    return jax.vmap(fun)


WAYS = {"series": by_series, "nested": by_nesting}
COLOURS = {"series": story.BLUE, "nested": story.VERMILION}


def measured(order, x):
    """For each way: lines of the program, seconds to compile and to run it; both agree. The ways take turns."""
    rows, runs, results = [], {}, {}
    for name, way in WAYS.items():
        lines = len(str(jax.make_jaxpr(way(order))(x)).splitlines())
        start = time.perf_counter()
        runs[name] = jax.jit(way(order)).lower(x).compile()
        rows.append({"order": order, "way": name, "lines": lines, "compilation": time.perf_counter() - start})
        results[name] = np.asarray(runs[name](x))
    best = dict.fromkeys(runs, np.inf)
    for _ in range(TIMES):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(x))
            best[name] = min(best[name], time.perf_counter() - start)
    gap = np.abs(results["series"] - results["nested"]).max() / np.abs(results["nested"]).max()
    return [dict(row, seconds=best[row["way"]], gap=float(gap)) for row in rows]


def train(s):
    """Losses of a net that solves u'' = -u, u(0) = 0, u'(0) = 1, with each library's derivatives; and u's error."""
    rng = s.rng(1)
    params = [nets.dense(rng, a, b) for a, b in ((1, 24), (24, 24), (24, 1))]
    points = jnp.linspace(0.0, 3.0, 32)

    def u(params, t):
        h = t[None]
        for layer in params[:-1]:
            h = jnp.tanh(nets.affine(layer, h))
        return t + t * t * nets.affine(params[-1], h)[0]  # has the value and the slope that are given

    def loss_by(second):
        def loss(params, step):
            residual = lambda t: second(lambda r: u(params, r))(t) + u(params, t)
            return jnp.mean(jax.vmap(residual)(points) ** 2)

        return loss

    engines = {
        "admodes": (loss_by(lambda f: admodes.derivative(f, 2)), admodes.value_and_grad),
        "jax.grad": (loss_by(lambda f: jax.grad(jax.grad(f))), jax.value_and_grad),
    }
    optimiser, losses, error = optax.adam(0.003), {}, np.inf
    for name, (loss, engine) in s.track(engines.items(), "training"):
        steps = jnp.arange(s.scaled(3, 600, 600))
        found, _, values = jax.jit(nets.descend(loss, optimiser, engine))(params, optimiser.init(params), steps)
        losses[name] = np.asarray(values)
        if name == "admodes":
            values_of = jax.vmap(u, (None, 0))
            error = float(jnp.abs(values_of(found, points) - jnp.sin(points)).max())
    return losses, error


def tell(s):
    x = jnp.linspace(0.1, 2.0, s.scaled(8, 20_000, 100_000))
    orders = range(1, s.scaled(3, 7, 8))
    rows = [row for order in s.track(orders, "orders") for row in measured(order, x)]
    s.table("orders", rows)
    of = {name: [row for row in rows if row["way"] == name] for name in WAYS}
    losses, error = train(s)

    figure, (left, middle, right) = story.panels(1, 3)
    for name, own in of.items():
        left.semilogy(orders, [r["lines"] for r in own], "o-", color=COLOURS[name], label=name)
        middle.semilogy(orders, [1e3 * r["seconds"] for r in own], "o-", color=COLOURS[name], label=f"{name}: run")
        middle.semilogy(orders, [1e3 * r["compilation"] for r in own], "o:", color=COLOURS[name], label="compile")
    left.set(xlabel="order", ylabel="lines of the program", title="what is written")
    middle.set(xlabel="order", ylabel="milliseconds", title="what it takes")
    left.legend()
    middle.legend(fontsize="x-small")
    s.coincide(right, losses["admodes"], losses["jax.grad"], "u'' = -u by a net")
    last = {name: own[-1] for name, own in of.items()}
    ratio = {key: last["nested"][key] / last["series"][key] for key in ("lines", "seconds", "compilation")}
    s.figure(
        figure,
        f"At order {last['series']['order']} nesting writes {ratio['lines']:.0f} times the lines and takes "
        f"{ratio['compilation']:.1f} times as long to compile, and {ratio['seconds']:.1f} times as long to run",
    )

    gap = max(row["gap"] for row in rows)
    s.claim("both are the same numbers", gap < 1e-10, f"largest difference {gap:.0e} of the largest derivative")
    growth = [of[name][-1]["lines"] / of[name][-2]["lines"] for name in WAYS]
    s.claim(
        "with one more order the nested program at least doubles, that on series does not",
        growth[0] < 1.8 < 2 <= growth[1],
        f"{growth[0]:.2f} against {growth[1]:.2f} times the lines",
    )
    s.claim(
        "the compiler has less to do",
        ratio["compilation"] > 1,
        f"{ratio['compilation']:.1f} times less; to run, nesting takes {ratio['seconds']:.1f} times as long",
    )
    s.claim("the net solves the equation", error < 0.03, f"its error is at most {error:.1e}; the solution is sin t")


if __name__ == "__main__":
    story.run(tell, x64=True)
