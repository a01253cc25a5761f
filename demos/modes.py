"""Modes: forward costs a pass per input, reverse a pass per output, and a waist or zeros call for neither.

Measured time and memory of both modes over a grid of dimensions, with the line where they cross, measured and
predicted; a net with a waist, where multiplying two Jacobians beats both; a sparse system; and what the planner picks,
with its regret: the time of its pick over that of the better plain mode.
"""

import story

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.colors import CenteredNorm

import admodes
from admodes.compare.measure import measure, paired_ratio

import data
import nets

HIDDEN = 128
LETTERS = {"forward": "F", "reverse": "R", "cuts": "C", "network": "N"}


def two_layers(rng, n, hidden, m):
    """x ↦ tanh(tanh(x W₁) W₂) with n inputs and m outputs, and a point."""
    first, second = (nets.dense(rng, *shape)["w"] for shape in ((n, hidden), (hidden, m)))
    return first, second, jnp.asarray(rng.standard_normal(n), jnp.float32)


def apply(x, first, second):
    return jnp.tanh(jnp.tanh(x @ first) @ second)


def mixed(x, first, second):
    """The two Jacobians by the mode that suits each (k outputs, then k inputs), multiplied."""
    inner = lambda x: jnp.tanh(x @ first)
    narrow = inner(x)
    return admodes.jacfwd(lambda h: jnp.tanh(h @ second))(narrow) @ admodes.jacrev(inner)(x)


def ring(x):
    """A reaction-diffusion step on a ring: three nonzeros in every row."""
    return jnp.roll(x, 1) - 2 * x + jnp.roll(x, -1) + x - x**3


def cost(functions, args, rounds):
    """Measurements by name, and how far the values are apart, relative to the largest entry."""
    found = measure(functions, args, rounds=rounds, builds=1, traces=1, run_seconds=1.0)
    values = [np.asarray(f.value) for f in found.values()]
    largest = max(np.abs(values[0]).max(), 1e-30)
    return found, max(np.abs(v - values[0]).max() / largest for v in values)


def tell(s):
    sizes = s.scaled((1, 16), (1, 4, 16, 64, 256, 1024), (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048))
    rounds = s.scaled(1, 15, 30)
    rows, apart = [], 0.0
    for n, m in s.track([(n, m) for m in sizes for n in sizes], "grid"):
        first, second, x = two_layers(s.rng(n, m), n, HIDDEN, m)
        args = x, first, second
        plan = admodes.plan(apply, *args)
        ways = {"forward": admodes.jacfwd(apply), "reverse": admodes.jacrev(apply), "plan": admodes.jacobian(apply)}
        found, off = cost(ways, args, rounds)
        seconds = {name: f.seconds("run") for name, f in found.items()}
        expected = {c.name: c.seconds for c in plan.candidates}
        best = found[min(("forward", "reverse"), key=seconds.get)].run
        rows.append(
            {
                "inputs": n,
                "outputs": m,
                **{f"{name}_s": t for name, t in seconds.items()},
                **{f"{name}_bytes": f.temp_bytes for name, f in found.items()},
                "ratio": paired_ratio(found["forward"].run, found["reverse"].run),
                "predicted_ratio": expected["forward"] / expected["reverse"],
                "pick": plan.best.name,
                "regret": paired_ratio(found["plan"].run, best),
                "textbook_regret": paired_ratio(found[admodes.choose_mode(n, m)].run, best),
            }
        )
        apart = max(apart, off)
    s.table("grid", rows)

    wide, narrow = s.scaled(16, 512, 1024), s.scaled((1, 4), (1, 2, 4, 8, 16, 32, 64, 128, 256), None)
    narrow = narrow or (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
    waists = []
    for k in s.track(narrow, "waist"):
        first, second, x = two_layers(s.rng(k), wide, k, wide)
        ways = {"forward": admodes.jacfwd(apply), "reverse": admodes.jacrev(apply), "mixed": mixed}
        found, off = cost({**ways, "plan": admodes.jacobian(apply)}, (x, first, second), rounds)
        seconds = {name: f.seconds("run") for name, f in found.items()}
        waists.append({"k": k, **seconds, "pick": admodes.plan(apply, x, first, second).best.name})
        apart = max(apart, off)
    s.table("waist", waists)

    lengths, chains = s.scaled((16, 32), (64, 128, 256, 512, 1024, 2048), (64, 128, 256, 512, 1024, 2048, 4096)), []
    for n in s.track(lengths, "sparse"):
        x = jnp.asarray(s.rng(n).standard_normal(n), jnp.float32)
        ways = {"forward": admodes.jacfwd(ring), "reverse": admodes.jacrev(ring), "plan, dense": admodes.jacobian(ring)}
        found, off = cost(ways, (x,), rounds)
        nonzeros, _ = cost({"plan, bcoo": lambda x: admodes.jacobian(ring, format="bcoo")(x).data}, (x,), rounds)
        seconds = {name: f.seconds("run") for name, f in {**found, **nonzeros}.items()}
        chains.append({"n": n, **seconds, "pick": admodes.plan(ring, x, format="bcoo").best.name})
        apart = max(apart, off)
    s.table("sparse", chains)
    losses = {engine.__name__: fit(s, engine.value_and_grad) for engine in (admodes, jax)}

    figure, ((a, b, c), (d, e, f)) = story.panels(2, 3, width=5.0)
    shape = len(sizes), len(sizes)
    ratio = np.reshape([r["ratio"] for r in rows], shape)
    heat(a, figure, sizes, np.log2(ratio), "log₂ of time, forward / reverse")
    at = np.arange(len(sizes))
    if len(sizes) > 2:
        a.contour(at, at, np.log2(ratio), [0.0], colors="black", linewidths=2)
        predicted = np.reshape([np.log2(r["predicted_ratio"]) for r in rows], shape)
        a.contour(at, at, predicted, [0.0], colors="black", linestyles=":", linewidths=2)
    for (j, i), row in zip(np.ndindex(shape), rows):
        a.annotate(LETTERS.get(row["pick"], "S"), (i, j), ha="center", va="center", fontsize=9)
    a.set_title("equal time: — measured, ⋯ predicted\npicks: Forward, Reverse, Cut, Network, Sparse")
    memory = np.reshape([np.log2((r["forward_bytes"] + 1) / (r["reverse_bytes"] + 1)) for r in rows], shape)
    heat(b, figure, sizes, np.clip(memory, -10, 10), "log₂ of temporary bytes, forward / reverse")
    b.set_title("memory beside it (cut at 2^±10)")
    colours = {"forward": story.VERMILION, "reverse": story.BLUE, "mixed": story.GREEN, "plan": story.BLACK}
    for (name, colour), marker in zip(colours.items(), "osD*"):
        c.loglog(narrow, [1e3 * w[name] for w in waists], marker=marker, color=colour, label=name, markersize=5)
    c.set(xlabel="width k of the waist", ylabel="time in ms", title=f"{wide}-k-{wide}: a waist")
    c.legend()
    ways = {"forward": story.VERMILION, "reverse": story.BLUE, "plan, dense": story.GREEN, "plan, bcoo": story.BLACK}
    for (name, colour), marker in zip(ways.items(), "osD*"):
        d.loglog(lengths, [1e6 * r[name] for r in chains], marker=marker, color=colour, label=name, markersize=5)
    d.set(xlabel="variables n", ylabel="time in µs", title="three nonzeros per row")
    d.legend()
    every = np.arange(len(rows))
    e.plot(every, sorted(r["textbook_regret"] for r in rows), color=story.ORANGE, label="n against m")
    e.plot(every, sorted(r["regret"] for r in rows), color=story.BLACK, label="the planner")
    e.axhline(1, color="grey", linewidth=1, linestyle=":")
    e.set(xlabel="cells of the grid, sorted", ylabel="regret: time / better plain mode", title="what the choice costs")
    e.legend()
    s.coincide(f, losses["admodes"], losses["jax"], "autoencoder 64-8-64")
    two = waists[min(1, len(waists) - 1)]
    s.figure(
        figure,
        f"{wide}-{two['k']}-{wide}: mixed mode {1e3 * two['mixed']:.2f} ms, forward {1e3 * two['forward']:.2f}, "
        f"reverse {1e3 * two['reverse']:.2f}",
    )

    s.claim("all ways give the same Jacobian", apart < 1e-4, f"{apart:.0e} apart")
    corner = {(r["inputs"], r["outputs"]): r["ratio"] for r in rows}
    most = sizes[-1]
    s.claim(
        "one input: forward wins; one output: reverse wins",
        corner[1, most] < 1 < corner[most, 1],
        f"forward / reverse {corner[1, most]:.2f} and {corner[most, 1]:.2f}",
    )
    inside = [r for r in rows if max(r["inputs"], r["outputs"]) >= 4 * min(r["inputs"], r["outputs"])]
    right = [(r["ratio"] < 1) == (r["inputs"] < r["outputs"]) for r in inside]
    s.claim(
        "n against m decides where they differ by 4 times",
        np.mean(right) > 0.7,
        f"right in {np.mean(right):.0%} of cells",
    )
    s.claim(
        "at a waist of 2 mixed mode beats both",
        two["mixed"] < 0.5 * min(two["forward"], two["reverse"]),
        f"{1e3 * two['mixed']:.3f} ms, forward {1e3 * two['forward']:.2f}, reverse {1e3 * two['reverse']:.2f}",
    )
    s.claim("the planner sees the waist", two["plan"] < 2 * two["mixed"], f"{two['pick']}: {1e3 * two['plan']:.3f} ms")
    last = chains[-1]
    s.claim(
        "where most entries are 0 the planner beats both modes",
        last["plan, bcoo"] < 0.1 * min(last["forward"], last["reverse"]),
        f"{last['pick']}: {1e6 * last['plan, bcoo']:.0f} µs, forward {1e6 * last['forward']:.0f}, "
        f"reverse {1e6 * last['reverse']:.0f} at n = {last['n']}",
    )
    regret, textbook = (np.array([r[key] for r in rows]) for key in ("regret", "textbook_regret"))
    s.claim(
        "in most cells the planner loses nothing to the better plain mode",
        np.median(regret) < 1.05,
        f"regret {np.median(regret):.2f} in the median, above 1.3 in {np.mean(regret > 1.3):.0%} of cells, worst "
        f"{regret.max():.2f}; n against m: {np.median(textbook):.2f}, {np.mean(textbook > 1.3):.0%}, "
        f"{textbook.max():.2f}",
    )


def heat(axes, figure, sizes, values, label):
    image = axes.imshow(values, origin="lower", cmap="RdBu_r", norm=CenteredNorm(), aspect="auto", alpha=0.85)
    figure.colorbar(image, ax=axes, label=label)
    axes.set(xlabel="inputs n", ylabel="outputs m")
    axes.set_xticks(range(len(sizes)), sizes)
    axes.set_yticks(range(len(sizes)), sizes)
    axes.grid(False)


def fit(s, value_and_grad):
    """The losses of an autoencoder of digits with a waist of 8."""
    digits, net, optimiser = data.digits(s.rng()), nets.MLP((64, 32, 8, 32, 64), "tanh"), optax.adam(3e-3)
    order = data.batches(s.rng(1), len(digits.y), 64, s.scaled(1, 10, 40)).reshape(-1, 64)
    steps = nets.descend(lambda p, i, x: jnp.mean((net(p, x[i]) - x[i]) ** 2), optimiser, value_and_grad)
    params = net.init(s.rng(2))
    *_, losses = jax.jit(steps)(params, optimiser.init(params), order, digits.x)
    return np.asarray(losses)


if __name__ == "__main__":
    story.run(tell)
