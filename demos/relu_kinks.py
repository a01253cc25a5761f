"""Kinks: programs that equal the identity, their slopes at 0 by every policy, and digits, half of whose pixels are 0.

relu(x) − relu(−x) is x, but relu'(0) = 0 or 1/2 makes its slope 0 or something else at x = 0. Raw digits sit on such
kinks in half of their pixels, so that an identity inserted through relus corrupts the gradient by the input, and what
is learnt from it. `admodes.subgradient` decides the kinks beside the point and returns the slope that there is.
"""

import story

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import admodes

import nets

SPELLINGS = {
    "jax.nn.relu": jax.nn.relu,
    "jnp.maximum": lambda x: jnp.maximum(x, 0.0),
    "jnp.where": lambda x: jnp.where(x > 0, x, 0.0),
    "jnp.abs": lambda x: (x + jnp.abs(x)) / 2,
}
WAYS = {
    "jax.grad": jax.grad,
    "ties='first'": lambda f: admodes.grad(f, ties="first"),
    "ties='average'": lambda f: admodes.grad(f, ties="average"),
    "subgradient": admodes.subgradient,
}


def identity(x, relu=jax.nn.relu):
    return relu(x) - relu(-x)


def identities(relu):
    """f1..f4, each of them x: Kakade and Lee, NeurIPS 2018, section 2."""
    return {
        "f1": lambda x: x,
        "f2": lambda x: identity(x, relu),
        "f3": lambda x: 10 * x - 9 * identity(x, relu),
        "f4": lambda x: relu(relu(x)) - relu(-x),
    }


def relative(found, exact):
    return float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact))


def train(s, x, y):
    """A perceptron that reads the digits."""
    net, optimiser = nets.MLP((x.shape[1], 32, 10), "relu"), optax.adam(0.01)
    params = net.init(s.rng(1))
    descent = nets.descend(lambda p, step: nets.cross_entropy(net(p, x), y), optimiser)
    params, *_ = jax.jit(descent)(params, optimiser.init(params), np.arange(s.scaled(3, 200, 200)))
    return lambda x: net(params, x)


def tell(s):
    slopes = [
        {"relu": spelling, "way": way, "function": name, "slope": float(differentiate(f)(0.0))}
        for spelling, relu in SPELLINGS.items()
        for name, f in identities(relu).items()
        for way, differentiate in WAYS.items()
    ]
    s.table("slopes", slopes)

    pixels, labels = load_digits(return_X_y=True)
    chosen = s.rng().permutation(len(labels))[: s.scaled(50, 1000, 1797)]
    x, y = jnp.asarray(pixels[chosen] / 16, jnp.float32), jnp.asarray(labels[chosen])
    zero = float(np.mean(pixels == 0))
    logits = train(s, x, y)
    clean, through = (lambda x, f=f: nets.cross_entropy(logits(f(x)), y) for f in (lambda x: x, identity))
    exact = jax.grad(clean)(x)
    errors = {way: relative(jax.jit(differentiate(through))(x), exact) for way, differentiate in WAYS.items()}
    s.table("input_gradient", [{"way": way, "relative_error": e} for way, e in errors.items()])

    # what has to be added to each image for it to be read as the next digit
    runs = {
        "without, jax.grad": (lambda x: x, jax.value_and_grad),
        "through relus, jax.grad": (identity, jax.value_and_grad),
        "through relus, subgradient": (identity, lambda f: admodes.value_and_grad(f, ties="lexicographic")),
    }
    steps, losses = np.arange(s.scaled(3, 100, 400)), {}
    optimiser, start = optax.sgd(0.05 * len(x)), jnp.zeros_like(x)
    for name, (f, engine) in s.track(runs.items(), "training"):
        loss = lambda added, step, f=f: nets.cross_entropy(logits(f(x + added)), (y + 1) % 10)
        *_, losses[name] = jax.jit(nets.descend(loss, optimiser, engine))(start, optimiser.init(start), steps)

    figure, (left, middle, right) = story.panels(1, 3, width=4.4)
    for k, way in enumerate(WAYS):
        heights = [r["slope"] for r in slopes if r["way"] == way and r["relu"] == "jax.nn.relu"]
        left.bar(np.arange(4) + (k - 1.5) * 0.2, heights, 0.2, color=story.COLOURS[k], label=way)
    left.axhline(1, color=story.BLACK, linewidth=0.8)
    left.set(xticks=range(4), xticklabels=["f1", "f2", "f3", "f4"], ylabel="slope at 0", title="all are x; jax.nn.relu")
    left.set_yscale("symlog")
    left.legend()
    middle.bar(range(len(errors)), list(errors.values()), color=story.COLOURS[: len(errors)])
    middle.set_xticks(range(len(errors)), list(errors), fontsize="small")
    middle.set(ylabel="relative error", title="gradient by the pixels, through an identity")
    s.coincide(
        right, losses["through relus, subgradient"], losses["without, jax.grad"], "subgradient through the identity"
    )
    right.plot(losses["through relus, jax.grad"], color=story.VERMILION, label="jax.grad through the identity")
    right.legend()
    s.figure(
        figure,
        f"An identity written with relus corrupts {errors['jax.grad']:.0%} of the input gradient of raw digits; "
        f"subgradient {errors['subgradient']:.0%}",
    )

    ours = [r["slope"] for r in slopes if r["way"] == "subgradient"]
    s.claim("subgradient: all slopes of f1..f4 are 1", set(ours) == {1.0}, f"{len(ours)} of {len(ours)} cases")
    for way in list(WAYS)[:3]:
        wrong = sum(r["slope"] != 1 for r in slopes if r["way"] == way)
        s.claim(f"{way} gets some of them wrong", wrong > 0, f"{wrong} of {len(ours)} cases")
    s.claim("half of the pixels are exactly 0", 0.45 < zero < 0.55, f"{zero:.0%}")
    s.claim("jax.grad through the identity is far off", errors["jax.grad"] > 0.3, f"{errors['jax.grad']:.0%}")
    s.claim("subgradient repairs it", errors["subgradient"] < 1e-5, f"relative error {errors['subgradient']:.0e}")
    off = float(losses["through relus, jax.grad"][-1] / losses["without, jax.grad"][-1] - 1)
    s.claim(
        "with the corrupted gradient what is learnt is worse", off > 0.1, f"its loss is {off:.0%} higher at the end"
    )


if __name__ == "__main__":
    story.run(tell)
