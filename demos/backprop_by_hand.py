"""Backprop by hand: the tape does what one would write by hand, operation for operation, and keeps up to twice as much.

The alphas and betas of the lecture's chain and graph; a deep net with its backward pass written out, layer by layer,
beside the same net on the tape: numbers, operations, and the memory each keeps between the two passes.
"""

from collections import Counter

import story

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import jaxprs_in_params

import admodes
from admodes import problems

import data
import nets

# -- the lecture's examples, by hand ---------------------------------------------------------------


def chain_by_hand(x):
    """f(x) = 10 log(1 + exp(−2 x)): values α of the steps and adjoints β = ∂f/∂α, in the order of evaluation."""
    a1 = -2 * x
    a2 = np.exp(a1)
    a3 = 1 + a2
    a4 = np.log(a3)
    a5 = 10 * a4
    b5 = 1.0
    b4 = 10 * b5  # ∂a5/∂a4 = 10
    b3 = b4 / a3  # log' = 1 / a3
    b2 = b3  # ∂a3/∂a2 = 1
    b1 = b2 * a2  # exp' = exp = a2
    return [("x", x, -2 * b1), ("−2 x", a1, b1), ("exp", a2, b2), ("1 + ·", a3, b3), ("log", a4, b4), ("10 ·", a5, b5)]


def graph_by_hand(x1, x2):
    """f = sin x₁ + x₁ x₂: x₁ is used twice, so its adjoint is a sum over two paths."""
    a1, a2 = np.sin(x1), x1 * x2
    b1 = b2 = 1.0  # both are summands of the result
    into_x1 = b1 * np.cos(x1) + b2 * x2
    into_x2 = b2 * x1
    return [("x₁", x1, into_x1), ("x₂", x2, into_x2), ("sin x₁", a1, b1), ("x₁ x₂", a2, b2), ("+", a1 + a2, 1.0)]


def by_tape(name):
    """Values and adjoints of a problem from the tape, in the same order."""
    f, args = problems.get(name).make("float64")
    return [(row["value"], row["derivative"]) for row in admodes.explain(f, *args).to_dict()["rows"]]


# -- a deep net, by hand ---------------------------------------------------------------------------


def loss(params, x, y):
    """Cross entropy of a net of tanh layers, a_{l+1} = tanh(a_l W_l + b_l)."""
    *hidden, last = params
    for p in hidden:
        x = jnp.tanh(nets.affine(p, x))
    return nets.cross_entropy(nets.affine(last, x), y)


def forward_by_hand(params, x, y):
    """The loss, and what the backward pass needs: every activation, and the probabilities."""
    *hidden, last = params
    activations = [x]
    for p in hidden:
        activations.append(jnp.tanh(nets.affine(p, activations[-1])))
    logits = nets.affine(last, activations[-1])
    log_probabilities = jax.nn.log_softmax(logits)
    value = -jnp.mean(jnp.take_along_axis(log_probabilities, y[:, None], axis=1))
    return value, (activations, jnp.exp(log_probabilities))


def backward_by_hand(params, kept, y):
    """W̄_l = a_lᵀ δ_l and b̄_l = Σ δ_l, with δ_L = (softmax − one-hot) / n and δ_{l−1} = (δ_l W_lᵀ)(1 − a_l²)."""
    activations, probabilities = kept
    delta = (probabilities - jax.nn.one_hot(y, probabilities.shape[1])) / len(y)
    gradient = []
    for p, a in zip(reversed(params), reversed(activations)):
        gradient.append({"w": a.T @ delta, "b": jnp.sum(delta, axis=0)})
        if a is not activations[0]:
            delta = (delta @ p["w"].T) * (1 - a * a)
    return gradient[::-1]


def by_hand(loss):
    """``value_and_grad`` of the net above, in the place of admodes' and JAX's."""

    def both(params, x, y):
        value, kept = forward_by_hand(params, x, y)
        return value, backward_by_hand(params, kept, y)

    return both


# -- what they cost --------------------------------------------------------------------------------


def operations(f, *args):
    """How often each primitive occurs in f, those inside jit and custom rules included."""
    found = Counter()

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            inner = list(jaxprs_in_params(equation.params))
            if not inner:
                found[equation.primitive.name] += 1
            for sub in inner:
                visit(sub)

    visit(jax.make_jaxpr(f)(*args).jaxpr)
    return found


def kept_bytes(kept, given):
    """The bytes of the arrays in ``kept``, each buffer once, without those that are in ``given`` anyway."""

    def buffers(tree):
        arrays = (leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array))
        return {leaf.unsafe_buffer_pointer(): leaf.nbytes for leaf in arrays}

    old = buffers(given)
    return sum(size for pointer, size in buffers(kept).items() if pointer not in old)


def memory(net, rng, digits):
    """Bytes kept between the passes, by hand, on the tape of admodes and in JAX's pullback; and the activations."""
    params, x, y = net.init(rng), jnp.asarray(digits.x[:128]), jnp.asarray(digits.y[:128])
    given = params, x, y
    _, by_hand_kept = forward_by_hand(*given)
    _, tape = admodes.vjp(lambda p: loss(p, x, y), params)
    _, jaxs = jax.vjp(lambda p: loss(p, x, y), params)
    activations = 4 * 128 * sum(net.sizes[1:-1])
    return {
        "activations": activations,
        "by hand": kept_bytes(by_hand_kept, given),
        "tape": kept_bytes(tape, given),
        "jax.vjp": kept_bytes(jaxs, given),
    }


def compiled_cost(value_and_grad, params, x, y):
    """Flops and peak temporary memory of the compiled loss and gradient."""
    compiled = jax.jit(value_and_grad(loss)).lower(params, x, y).compile()
    return compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes


ENGINES = {"by hand": by_hand, "admodes": admodes.value_and_grad, "jax.grad": jax.value_and_grad}
COLOURS = dict(zip(ENGINES, (story.VERMILION, story.BLUE, story.BLACK), strict=True))


def draw_trace(axes, rows, edges, title):
    """The steps from left to right, α above and β below; edges join the steps by their numbers."""
    for source, target in edges:
        style = {"arrowstyle": "->", "color": "grey", "shrinkA": 16, "shrinkB": 16}
        axes.annotate("", rows[target][0], rows[source][0], arrowprops=style)
    for (x, y), label, alpha, beta in rows:
        axes.plot(x, y, "o", markersize=34, color="white", markeredgecolor=story.BLACK)
        axes.annotate(label, (x, y), ha="center", va="center", fontsize=9)
        axes.annotate(f"{alpha:.4g}", (x, y + 0.34), ha="center", color=story.BLUE, fontsize=9)
        axes.annotate(f"{beta:.4g}", (x, y - 0.42), ha="center", color=story.VERMILION, fontsize=9)
    axes.set(xlim=(-0.6, max(r[0][0] for r in rows) + 0.6), title=title)
    axes.axis("off")


def tell(s):
    with jax.enable_x64(True):
        chain, graph = chain_by_hand(0.5), graph_by_hand(0.5, 2.0)
        taped = {"chain": by_tape("lecture_softplus"), "graph": by_tape("lecture_graph")}
    off = max(
        abs(a - b) / max(1.0, abs(b))
        for mine, theirs in ((chain, taped["chain"]), (graph, taped["graph"]))
        for (_, *ours), row in zip(mine, theirs)
        for a, b in zip(ours, row)
    )
    s.table(
        "traces",
        [
            {"example": name, "step": label, "alpha": a, "beta": b, "tape_alpha": ta, "tape_beta": tb}
            for name, rows in (("chain", chain), ("graph", graph))
            for (label, a, b), (ta, tb) in zip(rows, taped[name])
        ],
    )

    digits = data.digits(s.rng())
    depth, width = s.scaled(3, 20, 50), 64
    net = nets.MLP((64, *[width] * depth, 10), "tanh")
    params, x, y = net.init(s.rng(1)), jnp.asarray(digits.x[:128]), jnp.asarray(digits.y[:128])
    gradients = {name: jax.jit(engine(loss))(params, x, y)[1] for name, engine in ENGINES.items()}
    flat = {name: np.concatenate([np.ravel(a) for a in jax.tree.leaves(g)]) for name, g in gradients.items()}
    apart = {name: np.abs(g - flat["by hand"]).max() / np.abs(flat["by hand"]).max() for name, g in flat.items()}
    counts = {name: operations(engine(loss), params, x, y) for name, engine in ENGINES.items()}
    costs = {name: compiled_cost(engine, params, x, y) for name, engine in ENGINES.items()}
    s.table(
        "operations",
        [{"engine": n, "primitive": p, "count": k} for n, found in counts.items() for p, k in found.items()],
    )
    s.table("compiled", [{"engine": n, "flops": flops, "temporary_bytes": b} for n, (flops, b) in costs.items()])
    depths = s.scaled((1, 2), (5, 10, 20, 40), (5, 10, 20, 40, 80, 160))
    kept = {d: memory(nets.MLP((64, *[width] * d, 10), "tanh"), s.rng(2), digits) for d in s.track(depths, "memory")}
    s.table("memory", [{"depth": d, **found} for d, found in kept.items()])

    losses, order = {}, data.batches(s.rng(3), len(digits.y), 128, s.scaled(1, 15, 60)).reshape(-1, 128)
    for name in s.track(list(ENGINES), "training"):
        optimiser = optax.adam(1e-3)
        engine = lambda f, make=ENGINES[name]: lambda p, i, x, y: make(loss)(p, x[i], y[i])
        steps = jax.jit(nets.descend(loss, optimiser, engine))
        *_, found = steps(params, optimiser.init(params), order, digits.x, digits.y)
        losses[name] = np.asarray(found)

    figure, ((a, b, c), (d, e, f)) = story.panels(2, 3)
    at = [(k, 0.0) for k in range(len(chain))]
    edges = [(k, k + 1) for k in range(len(chain) - 1)]
    draw_trace(a, [(xy, *row) for xy, row in zip(at, chain)], edges, "10 log(1 + exp(−2 x)) at x = ½: α above, β below")
    a.set_ylim(-1.5, 1.5)
    at = [(0, 0.7), (0, -0.7), (1.2, 0.7), (1.2, -0.7), (2.4, 0.0)]
    edges = [(0, 2), (0, 3), (1, 3), (2, 4), (3, 4)]
    draw_trace(b, [(xy, *row) for xy, row in zip(at, graph)], edges, "sin x₁ + x₁ x₂: the β of x₁ adds two paths")
    b.set_ylim(-1.5, 1.5)
    shown = ["dot_general", "tanh", "mul", "reduce_sum", "transpose"]
    for k, (name, found) in enumerate(counts.items()):
        at = np.arange(len(shown)) + 0.27 * (k - 1)
        bars = c.bar(at, [found[p] for p in shown], 0.25, color=COLOURS[name], label=name)
        c.bar_label(bars, fontsize="x-small")
    c.set_xticks(range(len(shown)), shown, rotation=15)
    c.set(ylabel="number of operations", title=f"loss and gradient, {depth} hidden layers")
    c.legend()
    styles = {"by hand": "o", "tape": "D", "jax.vjp": "^", "activations": "x"}
    for colour, (name, style) in zip((story.VERMILION, story.BLUE, story.BLACK, "grey"), styles.items()):
        d.plot(depths, [kept[n][name] / 1e6 for n in depths], style, linestyle="-", color=colour, label=name)
    d.set(xlabel="hidden layers", ylabel="kept between the passes in MB", title="without jit, beyond x and the weights")
    d.legend()
    e.barh(list(costs), [b / 1e6 for _, b in costs.values()], color=COLOURS.values())
    e.set(xlabel="peak temporary memory in MB", title=f"compiled, {depth} hidden layers")
    s.coincide(f, losses["admodes"], losses["jax.grad"], f"{depth} layers of tanh")
    f.plot(losses["by hand"], ":", color=story.VERMILION, label="by hand", linewidth=1.5)
    f.legend()
    matmuls = {name: found["dot_general"] for name, found in counts.items()}
    ratio = kept[depths[-1]]["tape"] / kept[depths[-1]]["by hand"]
    temp = {name: cost[1] for name, cost in costs.items()}
    saved = temp["admodes"] / temp["by hand"]
    s.figure(
        figure,
        f"Tape and hand: {matmuls['admodes']} matrix products each; the tape keeps {ratio:.2f} times as much, compiled "
        f"{saved:.2f} times",
    )

    s.claim(
        "α and β of the lecture's examples are those of the tape", off < 1e-14, f"relative difference at most {off:.0e}"
    )
    s.claim(
        "the tape's gradient is the one written by hand",
        apart["admodes"] < 1e-5,
        f"{apart['admodes']:.0e} of the largest entry, jax.grad {apart['jax.grad']:.0e}",
    )
    s.claim(
        "it takes the same matrix products",
        len(set(matmuls.values())) == 1,
        ", ".join(f"{n} {k}" for n, k in matmuls.items()),
    )
    flops = {name: cost[0] for name, cost in costs.items()}
    s.claim(
        "and the same arithmetic",
        abs(flops["admodes"] / flops["by hand"] - 1) < 0.02,
        f"flops / by hand {flops['admodes'] / flops['by hand']:.3f}",
    )
    s.claim(
        "uncompiled, the tape keeps at most what jax.vjp keeps",
        kept[depths[-1]]["tape"] <= 1.05 * kept[depths[-1]]["jax.vjp"],
        f"{ratio:.2f} of the hand-written",
    )
    s.claim(
        "compiled, it needs the memory that jax.grad needs",
        temp["admodes"] <= 1.02 * temp["jax.grad"],
        f"{temp['admodes'] / temp['jax.grad']:.2f} of it, {saved:.2f} of the hand-written",
    )


if __name__ == "__main__":
    story.run(tell)
