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
from admodes.compare.measure import measure

import data
import nets

HIDDEN = 128
LETTERS = {"forward": "F", "reverse": "R", "cuts": "C"}


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


def times(functions, args, rounds):
    """Median seconds and temporary bytes by name, and how far the values are apart, relative to the largest entry."""
    found = measure(functions, args, rounds=rounds, builds=1, traces=1, run_seconds=1.0)
    values = {name: np.asarray(f.value) for name, f in found.items()}
    reference = next(iter(values.values()))
    apart = max(np.abs(v - reference).max() / max(np.abs(reference).max(), 1e-30) for v in values.values())
    return {name: f.seconds("run") for name, f in found.items()}, {n: f.temp_bytes for n, f in found.items()}, apart


def tell(s):
    sizes = s.scaled((1, 16), (1, 4, 16, 64, 256, 1024), (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048))
    rounds = s.scaled(1, 5, 15)
    rows, apart = [], 0.0
    for n, m in s.track([(n, m) for m in sizes for n in sizes], "grid"):
        first, second, x = two_layers(s.rng(n, m), n, HIDDEN, m)
        args = x, first, second
        plan = admodes.plan(apply, *args)
        ways = {"forward": admodes.jacfwd(apply), "reverse": admodes.jacrev(apply), "plan": admodes.jacobian(apply)}
        seconds, temp, off = times(ways, args, rounds)
        expected = {c.name: c.seconds for c in plan.candidates}
        best = min(seconds["forward"], seconds["reverse"])
        rows.append(
            {
                "inputs": n,
                "outputs": m,
                **{f"{name}_s": t for name, t in seconds.items()},
                **{f"{name}_bytes": b for name, b in temp.items()},
                "predicted_ratio": expected["forward"] / expected["reverse"],
                "pick": plan.best.name,
                "regret": seconds["plan"] / best,
                "textbook_regret": seconds[admodes.choose_mode(n, m)] / best,
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
        seconds, _, off = times({**ways, "plan": admodes.jacobian(apply)}, (x, first, second), rounds)
        waists.append({"k": k, **seconds, "pick": admodes.plan(apply, x, first, second).best.name})
        apart = max(apart, off)
    s.table("waist", waists)

    lengths, chains = s.scaled((16, 32), (64, 128, 256, 512, 1024, 2048), (64, 128, 256, 512, 1024, 2048, 4096)), []
    for n in s.track(lengths, "sparse"):
        x = jnp.asarray(s.rng(n).standard_normal(n), jnp.float32)
        ways = {"forward": admodes.jacfwd(ring), "reverse": admodes.jacrev(ring), "plan, dense": admodes.jacobian(ring)}
        seconds, _, off = times(ways, (x,), rounds)
        sparse, _, _ = times({"plan, bcoo": lambda x: admodes.jacobian(ring, format="bcoo")(x).data}, (x,), rounds)
        chains.append({"n": n, **seconds, **sparse, "pick": admodes.plan(ring, x, format="bcoo").best.name})
        apart = max(apart, off)
    s.table("sparse", chains)
    losses = {engine.__name__: fit(s, engine.value_and_grad) for engine in (admodes, jax)}

    figure, ((a, b, c), (d, e, f)) = story.panels(2, 3, width=5.0)
    shape = len(sizes), len(sizes)
    ratio = np.reshape([r["forward_s"] / r["reverse_s"] for r in rows], shape)
    heat(a, figure, sizes, np.log2(ratio), "log₂ of time, forward / reverse")
    at = np.arange(len(sizes))
    if len(sizes) > 2:
        a.contour(at, at, np.log2(ratio), [0.0], colors="black", linewidths=2)
        predicted = np.reshape([np.log2(r["predicted_ratio"]) for r in rows], shape)
        a.contour(at, at, predicted, [0.0], colors="black", linestyles=":", linewidths=2)
    for (j, i), row in zip(np.ndindex(shape), rows):
        a.annotate(LETTERS.get(row["pick"], "S"), (i, j), ha="center", va="center", fontsize=9)
    a.set_title("equal time: — measured, ⋯ predicted\npicks: Forward, Reverse, Cut, Sparse")
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
    corner = {(r["inputs"], r["outputs"]): r["forward_s"] / r["reverse_s"] for r in rows}
    most = sizes[-1]
    s.claim(
        "one input: forward wins; one output: reverse wins",
        corner[1, most] < 1 < corner[most, 1],
        f"forward / reverse {corner[1, most]:.2f} and {corner[most, 1]:.2f}",
    )
    inside = [r for r in rows if max(r["inputs"], r["outputs"]) >= 4 * min(r["inputs"], r["outputs"])]
    right = [(r["forward_s"] < r["reverse_s"]) == (r["inputs"] < r["outputs"]) for r in inside]
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
    regret = [r["regret"] for r in rows]
    s.claim(
        "the planner's regret is small on the grid",
        np.median(regret) < 1.1 and np.mean(np.array(regret) < 1.3) > 0.9,
        f"median {np.median(regret):.2f}, worst {max(regret):.2f}; the textbook rule's worst "
        f"{max(r['textbook_regret'] for r in rows):.2f}",
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
