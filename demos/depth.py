"""Depth: sigmoid nets stop learning, plain relu nets learn worse, skip connections and batch norm repair both.

Six nets of 20 to 100 layers on digits, trained alike with Adam. Gradients with respect to the activations show why:
a sigmoid multiplies them by at most 1/4 per layer, until they are too small for float32; relu with He's weights keeps
their size, and still trains worse with depth.
"""

from functools import partial

import story

import jax
import numpy as np
import optax

import admodes

import data
import nets

NETS = {
    "sigmoid": {"activation": "sigmoid"},
    "relu": {},
    "relu + skip": {"kind": "skip"},
    "ResNet": {"kind": "resnet"},
    "DenseNet": {"kind": "densenet"},
    "sigmoid + batch norm": {"activation": "sigmoid", "batch_norm": True},
}
COLOURS = dict(
    zip(NETS, (story.VERMILION, story.ORANGE, story.SKY, story.BLUE, story.GREEN, story.PURPLE), strict=True)
)
MARKERS = dict(zip(NETS, "vos^DP", strict=True))
BATCH = 64


def train(net, optimiser, digits, order, rng, value_and_grad=admodes.value_and_grad):
    """Train on minibatches ``order`` (steps, batch): initial and final parameters, losses, test accuracy."""
    steps = jax.jit(nets.descend(lambda p, i, x, y: nets.cross_entropy(net(p, x[i]), y[i]), optimiser, value_and_grad))
    test = jax.jit(lambda p, x, t, y: nets.accuracy(net(p, t, net.moments(p, x)), y))
    initial = net.init(rng)
    params, _, losses = steps(initial, optimiser.init(initial), order, digits.x, digits.y)
    return initial, params, losses, float(test(params, digits.x, digits.x_test, digits.y_test))


def draw_gradients(axes, gradients, when):
    for name, g in gradients.items():
        layer, floor = np.arange(1, len(g) + 1), 1e-44
        axes.semilogy(layer, np.where(g > 0, g, np.nan), color=COLOURS[name], label=name)
        axes.semilogy(layer[g == 0], np.full((g == 0).sum(), floor), "x", color=COLOURS[name], markersize=5)
    if any((g == 0).any() for g in gradients.values()):
        axes.annotate("× exactly 0 in float32", (0.4, 0.03), xycoords="axes fraction", color=COLOURS["sigmoid"])
    axes.set(xlabel="layer", ylabel="mean over examples of $\\|\\partial\\ell/\\partial a_l\\|_1$", title=when)


def tell(s):
    depths = s.scaled((10,), (20, 50, 100), (10, 20, 50, 100, 200))
    middle, deepest = s.scaled((10, 10), (50, 100), (50, 100))
    epochs, seeds = s.scaled(1, 20, 60), s.scaled(1, 1, 3)
    digits = data.digits(s.rng())
    order = data.batches(s.rng(1), len(digits.y), BATCH, epochs).reshape(-1, BATCH)

    rows, losses, gradients = [], {}, {}
    runs = [(name, depth, seed) for depth in depths for name in NETS for seed in range(seeds)]
    for name, depth, seed in s.track(runs, "training"):
        s.say(f"{name}, {depth} layers")
        net = nets.Deep(depth, **NETS[name])
        initial, trained, loss, accuracy = train(net, optax.adam(1e-3), digits, order, s.rng(2, seed))
        losses[name, depth] = loss
        rows.append({"net": name, "depth": depth, "seed": seed, "accuracy": accuracy, "loss": loss[-1]})
        if depth == deepest or (name, depth) == ("sigmoid", middle):
            by_layer = jax.jit(partial(nets.layer_gradients, net))
            found = (by_layer(params, digits.x[:256], digits.y[:256]) for params in (initial, trained))
            gradients[name, depth] = tuple(map(np.asarray, found))
    s.table("accuracy", rows)
    s.table(
        "gradients",
        [
            {"net": name, "depth": depth, "layer": k + 1, "initial": before, "trained": after}
            for (name, depth), pair in gradients.items()
            for k, (before, after) in enumerate(zip(*pair))
        ],
    )
    net = nets.Deep(middle)
    by_layer = jax.jit(lambda params: nets.layer_gradients(net, params, digits.x[:256], digits.y[:256]))
    starts = [np.asarray(by_layer(net.init(s.rng(3, k)))) for k in range(s.scaled(2, 20, 50))]
    factors = [(g[0] / g[-1]) ** (1 / (middle - 1)) for g in starts]
    s.table("relu-starts", [{"start": k, "factor_per_layer": f} for k, f in enumerate(factors)])
    accuracy = {k: np.mean([r["accuracy"] for r in rows if (r["net"], r["depth"]) == k]) for k in losses}

    optimisers = {"heavy ball 0.01": optax.sgd(0.01, 0.9), "Adam 0.003": optax.adam(3e-3)}
    relu = {"Adam 0.001": accuracy["relu", middle]}
    for name, optimiser in s.track(optimisers.items(), "relu by optimiser"):
        *_, relu[name] = train(nets.Deep(middle), optimiser, digits, order, s.rng(2))
    s.table("relu", [{"optimiser": name, "depth": middle, "accuracy": a} for name, a in relu.items()])
    resnet = nets.Deep(middle, "resnet")
    _, _, jaxs, _ = train(resnet, optax.adam(1e-3), digits, order, s.rng(2, seeds - 1), jax.value_and_grad)

    figure, ((left, right), (below, beside)) = story.panels(2, 2, width=5.4)
    draw_gradients(left, {n: gradients[n, deepest][0] for n in NETS}, f"gradients of a {deepest}-layer net, initial")
    draw_gradients(right, {n: gradients[n, deepest][1] for n in NETS}, f"the same after {epochs} epochs")
    left.legend(loc="lower right", bbox_to_anchor=(1.0, 0.08))
    for name in NETS:
        line = [accuracy[name, depth] for depth in depths]
        below.plot(depths, line, color=COLOURS[name], marker=MARKERS[name], label=name)
    below.set(
        xlabel="layers", ylabel="test accuracy", xscale="log", ylim=(0, 1.03), title=f"after {epochs} epochs of Adam"
    )
    below.set_xticks(depths, map(str, depths))
    below.minorticks_off()
    below.axhline(0.1, color="grey", linestyle=":", linewidth=1)
    below.annotate("guessing", (depths[-1], 0.115), color="grey", ha="right")
    s.coincide(beside, losses["ResNet", middle], jaxs, f"ResNet of {middle} layers")
    a = {name: accuracy[name, middle] for name in NETS}
    s.figure(
        figure,
        f"At {middle} layers: sigmoid {a['sigmoid']:.0%}, relu {a['relu']:.0%}, ResNet {a['ResNet']:.0%}, "
        f"DenseNet {a['DenseNet']:.0%}, sigmoid + batch norm {a['sigmoid + batch norm']:.0%}",
    )

    at_50, at_100 = gradients["sigmoid", middle][0], gradients["sigmoid", deepest][0]
    rate = (at_50[0] / at_50[-1]) ** (1 / (middle - 1))
    s.claim(
        "a sigmoid net's gradient shrinks geometrically", rate < 0.3, f"by {rate:.3f} per layer, at most 1/4 in theory"
    )
    zeros = int((at_100 == 0).sum())
    s.claim(
        f"at {deepest} layers the first ones get exactly nothing",
        zeros > 0 and not at_100[:zeros].any(),
        f"gradient 0 in the first {zeros} layers; at {middle} layers the first has {at_50[0]:.0e}",
    )
    s.claim("a sigmoid net does not learn", a["sigmoid"] < 0.2, f"{a['sigmoid']:.1%} at {middle} layers")
    s.claim(
        "plain relu does not vanish at the start",
        0.8 < np.median(factors) < 1.25,
        f"factor per layer {np.median(factors):.2f} (median of {len(factors)} starts, {min(factors):.2f} to "
        f"{max(factors):.2f}), the sigmoid's {rate:.2f}",
    )
    s.claim(
        "plain relu still trains worse than a ResNet, whatever the optimiser",
        max(relu.values()) < a["ResNet"],
        ", ".join(f"{name} {value:.0%}" for name, value in relu.items()) + f"; ResNet {a['ResNet']:.1%}",
    )
    for name in ("relu + skip", "ResNet", "DenseNet", "sigmoid + batch norm"):
        s.claim(f"{name} trains at {middle} layers", a[name] > 0.9, f"{a[name]:.1%}")


if __name__ == "__main__":
    story.run(tell)
