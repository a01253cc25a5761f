"""Checkpointing: memory against time for every schedule on a long loop and a deep net, and training within a limit.

Reverse mode keeps what it needs on the way back, or computes it again. Each schedule of `admodes.checkpoint` is a point
in the plane of memory and time, as are the placements of `jax.checkpoint`; `admodes.grad(f, memory_limit=...)` picks a
point to the left of the limit. What is computed again is the same up to roundoff.
"""

import time

import story

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from sklearn.datasets import load_digits

import admodes

import nets


def measured(gradients, *args, repeats=5):
    """(MiB of temporaries, seconds, gradient) of each compiled gradient; the runs take turns."""
    compiled = {name: jax.jit(gradient).lower(*args).compile() for name, gradient in gradients.items()}
    results = {name: jax.block_until_ready(run(*args)) for name, run in compiled.items()}
    times = {name: [] for name in compiled}
    for _ in range(repeats):
        for name, run in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(run(*args))
            times[name].append(time.perf_counter() - start)
    mebibytes = {name: run.memory_analysis().temp_size_in_bytes / 2**20 for name, run in compiled.items()}
    return {name: (mebibytes[name], min(times[name]), results[name]) for name in compiled}


def orbit(x, steps, kept=lambda step: step):
    """The end of a ring of coupled pendulums."""
    step = kept(lambda y: y + (jnp.roll(y, 1) - 2 * jnp.sin(y) + jnp.roll(y, -1)) / steps)
    return jnp.sum(lax.scan(lambda y, _: (step(y), None), x, None, length=steps)[0] ** 2)


def layered(ws, x, kept=lambda layer: layer):
    for w in ws:
        x = kept(lambda x, w: jnp.tanh(x @ w))(x, w)
    return jnp.sum(x**2)


def schedules(fun, slots):
    """The gradient of ``fun`` under each policy."""
    named = {"sqrt": ("sqrt", 1)} | {f"revolve, {s} slots": ("revolve", s) for s in slots}
    return {name: admodes.grad(admodes.checkpoint(fun, p, slots=s)) for name, (p, s) in named.items()}


def largest_difference(results) -> float:
    """Of any gradient from that of jax.grad, relative to its norm."""
    norm = lambda leaves: np.sqrt(sum(float(jnp.vdot(x, x)) for x in leaves))
    exact = jax.tree.leaves(results["jax.grad"][2])
    gaps = [[a - b for a, b in zip(jax.tree.leaves(r[2]), exact, strict=True)] for r in results.values()]
    return max(map(norm, gaps)) / norm(exact)


def scatter(axes, results, title):
    for k, (name, (memory, seconds, _)) in enumerate(results.items()):
        marker = "s" if name.startswith("jax") else "o"
        axes.plot(memory, seconds * 1e3, marker, color=story.COLOURS[k % len(story.COLOURS)], label=name)
    axes.set(xscale="log", xlabel="temporaries (MiB)", ylabel="time (ms)", title=title)
    axes.xaxis.set_minor_formatter("")
    axes.legend(fontsize="x-small")


def tell(s):
    steps, width = s.scaled(200, 10_000, 100_000), s.scaled(50, 1000, 1000)
    f = lambda x: orbit(x, steps)
    per_step = lambda x: orbit(x, steps, jax.checkpoint)
    loop = measured(
        {"jax.grad": jax.grad(f), "jax.checkpoint of each step": jax.grad(per_step), **schedules(f, (100, 20, 5))},
        jnp.asarray(s.rng().normal(size=width), jnp.float32),
    )

    depth, units, batch = s.scaled(9, 64, 64), s.scaled(8, 128, 256), s.scaled(16, 1024, 2048)
    ws = [jnp.asarray(s.rng(1, k).normal(size=(units, units)) / units**0.5, jnp.float32) for k in range(depth)]
    x = jnp.asarray(s.rng(2).normal(size=(batch, units)), jnp.float32)
    g = lambda ws: layered(ws, x)
    net = measured(
        {
            "jax.grad": jax.grad(g),
            "jax.checkpoint of each layer": jax.grad(lambda ws: layered(ws, x, jax.checkpoint)),
            **schedules(g, (12, 6, 3)),
        },
        ws,
    )
    for name, results in (("loop", loop), ("net", net)):
        s.table(name, [{"schedule": k, "MiB": m, "ms": 1e3 * t} for k, (m, t, _) in results.items()])

    pixels, labels = load_digits(return_X_y=True)
    chosen = s.rng().permutation(len(labels))[: s.scaled(50, 1000, 1797)]
    images, digits = jnp.asarray(pixels[chosen] / 16, jnp.float32), jnp.asarray(labels[chosen])
    model, optimiser = nets.MLP((64, *([32] * s.scaled(3, 20, 40)), 10), "tanh"), optax.adam(0.003)
    params = model.init(s.rng(1))
    loss = lambda params, step: nets.cross_entropy(model(params, images), digits)
    needed = jax.jit(admodes.grad(loss)).lower(params, 0).compile().memory_analysis().temp_size_in_bytes
    limit = int(needed * s.scaled(2.0, 0.7, 0.7))
    engines = {"jax": jax.value_and_grad, "limited": lambda f: admodes.value_and_grad(f, memory_limit=limit)}
    losses, numbers = {}, np.arange(s.scaled(3, 100, 400))
    for name, engine in s.track(engines.items(), "training"):
        *_, losses[name] = jax.jit(nets.descend(loss, optimiser, engine))(params, optimiser.init(params), numbers)

    figure, (left, middle, right) = story.panels(1, 3, width=4.6)
    scatter(left, loop, f"{steps} steps of {width} pendulums")
    scatter(middle, net, f"{depth} layers of {units} units")
    s.coincide(right, losses["limited"], losses["jax"], f"within {limit / needed:.0%} of the memory")
    most, least = loop["jax.grad"][0], min(m for m, _, _ in loop.values())
    slower = loop["revolve, 100 slots"][1] / loop["jax.grad"][1]
    s.figure(figure, f"The gradient of {steps} steps in {least:.2g} MiB instead of {most:.2g}")

    gap = max(map(largest_difference, (loop, net)))
    s.claim("all schedules give the gradient of jax.grad, to roundoff", gap < 0.01, f"relative difference {gap:.0e}")
    s.claim("revolve needs less than a tenth of the loop's memory", least < 0.1 * most, f"{least / most:.1%}")
    s.claim("and takes at most 3 times as long with 100 slots", slower <= 3, f"{slower:.2f} times")
    layer = net["jax.checkpoint of each layer"][0] / net["jax.grad"][0]
    root = net["sqrt"][0] / net["jax.grad"][0]
    s.claim("sqrt needs less than half of the net's memory", root < 0.5, f"{root:.0%}; each layer by JAX: {layer:.0%}")


if __name__ == "__main__":
    story.run(tell)
