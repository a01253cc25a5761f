"""Train: a 100-layer ResNet learns digits with optax and our tape, as fast as with jax.grad.

Losses, test accuracy and steps per second, epoch by epoch and side by side with the same training on jax.grad. With
``--memory-limit 50MiB`` wider layers and larger batches, of which our gradient keeps no more than that.
"""

import argparse
import statistics
import time
from functools import partial

import story

import jax
import numpy as np
import optax

import admodes
from admodes.compare.measure import interleave, paired_ratio
from admodes.text_tables import count, memory_bytes

import data
import nets

BATCH, WIDTH, EPOCHS = 64, 32, 30
LIMITED = {"batch": 1024, "width": 128, "epochs": 30}  # so that all 100 layers need 65 MiB


def options(parser):
    parser.add_argument("--depth", type=int, help="layers, an even number (default: 100)")
    parser.add_argument("--epochs", type=int, help="passes over the training set (default: 30)")
    parser.add_argument("--batch", type=int, help="examples in a batch (default: 64; 1024 within a limit)")
    parser.add_argument("--width", type=int, help="units of a layer (default: 32; 128 within a limit)")
    parser.add_argument(
        "--memory-limit", type=size, metavar="BYTES", help="that our gradient keeps within, such as 50MiB"
    )
    parser.add_argument(
        "--data", choices=data.SETS, default="digits", help="default: digits; mnist needs admodes[mnist]"
    )


def size(text):
    try:
        return memory_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def temporaries(value_and_grad, loss, params, batch, split) -> int:
    """The bytes that the compiled gradient of a batch needs beside its arguments and results."""
    compiled = jax.jit(value_and_grad(loss)).lower(params, batch, split.x, split.y).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def tell(s):
    limit = s.options.memory_limit
    larger = LIMITED if limit is not None else {"batch": BATCH, "width": WIDTH, "epochs": EPOCHS}
    depth = s.options.depth or s.scaled(4, 100, 100)
    epochs = s.options.epochs or s.scaled(2, larger["epochs"], max(larger["epochs"], 100))
    split = data.SETS[s.options.data](s.rng())
    net = nets.Deep(depth, "resnet", s.options.width or larger["width"], inputs=split.inputs)
    order = data.batches(s.rng(1), len(split.y), s.options.batch or larger["batch"], epochs)
    optimiser = optax.adam(optax.cosine_decay_schedule(2e-3, order.shape[0] * order.shape[1]))

    def loss(params, batch, x, y):
        return nets.cross_entropy(net(params, x[batch]), y[batch])

    test = jax.jit(lambda params, x, y: nets.accuracy(net(params, x), y))
    params = net.init(s.rng(2))
    engines = {"admodes": partial(admodes.value_and_grad, memory_limit=limit), "jax.grad": jax.value_and_grad}
    runs = {}
    for name, value_and_grad in engines.items():
        steps = jax.jit(nets.descend(loss, optimiser, value_and_grad))
        start = time.perf_counter()
        steps = steps.lower(params, optimiser.init(params), order[0], split.x, split.y).compile()
        runs[name] = {"steps": steps, "compile": time.perf_counter() - start, "seconds": [], "losses": [], "curve": []}
        runs[name]["at"] = params, optimiser.init(params)

    for epoch in s.track(range(epochs), f"{depth} layers"):  # side by side, so that a busy machine slows down both
        for name in (engines, reversed(engines))[epoch % 2]:
            run = runs[name]
            start = time.perf_counter()
            *at, losses = jax.block_until_ready(run["steps"](*run["at"], order[epoch], split.x, split.y))
            run["seconds"].append(time.perf_counter() - start)
            run["at"] = at
            run["losses"].extend(np.asarray(losses).tolist())
            run["curve"].append(float(test(at[0], split.x_test, split.y_test)))
        ours = runs["admodes"]
        rate = order.shape[1] / ours["seconds"][-1]
        s.say(f"loss {ours['losses'][-1]:.3f}, test accuracy {ours['curve'][-1]:.1%}, {rate:.0f} steps/s")

    ours, theirs = runs["admodes"], runs["jax.grad"]
    accuracy = ours["curve"][-1]
    again = {name: partial(run["steps"], *run["at"], order[-1], split.x, split.y) for name, run in runs.items()}
    samples = interleave(again, s.scaled(2, 60, 200))
    ratio = paired_ratio(samples["jax.grad"], samples["admodes"])
    speed = {name: order.shape[1] / statistics.median(seconds) for name, seconds in samples.items()}
    s.table(
        "epochs",
        [
            {"epoch": k + 1, "engine": name, "seconds": t, "loss": np.mean(loss), "accuracy": a}
            for name, run in runs.items()
            for k, (t, loss, a) in enumerate(
                zip(run["seconds"], np.reshape(run["losses"], (epochs, -1)), run["curve"], strict=True)
            )
        ],
    )
    s.table("speed", [{"engine": n, "steps_per_s": speed[n], "compile_s": runs[n]["compile"]} for n in runs])

    figure, (left, middle, right) = story.panels(1, 3)
    done = np.arange(1, epochs + 1)
    left.plot(done, 100 * np.array(ours["curve"]), color=story.GREEN, marker=".")
    left.axhline(95, color="grey", linestyle=":", linewidth=1)
    left.annotate("95%", (epochs, 95), (0, -12), textcoords="offset points", color="grey", ha="right")
    left.set(xlabel="epoch", ylabel="test accuracy in %", title=f"ResNet of {depth} layers, after each epoch")
    s.coincide(middle, ours["losses"], theirs["losses"], f"ResNet of {depth} layers")
    for colour, (name, run) in zip((story.BLUE, story.BLACK), runs.items()):
        right.plot(done, order.shape[1] / np.array(run["seconds"]), color=colour, marker=".", label=name, linewidth=1)
    right.set(xlabel="epoch", ylabel="steps per second", title=f"speed beside jax.grad's: {ratio:.2f}")
    right.set_ylim(bottom=0)
    right.legend(loc="lower right")
    if limit is not None:
        kept = {n: temporaries(engine, loss, params, order[0, 0], split) for n, engine in engines.items()}
        s.table("memory", [{"engine": n, "bytes": b, "limit": limit} for n, b in kept.items()])
        mine, theirs = (count(b, "B") for b in kept.values())
        s.figure(figure, f"{depth} layers trained in {mine} beside {theirs}, at {ratio:.2f} of jax.grad's speed")
        within = f"{mine}, where jax.grad needs {theirs}; {ratio:.2f} of its speed"
        s.claim(f"the gradient's temporaries are within {count(limit, 'B')}", kept["admodes"] <= limit, within)
        return

    s.figure(
        figure, f"{depth} layers trained on our tape: {accuracy:.1%} on the test set, {ratio:.2f} of jax.grad's speed"
    )
    s.claim(f"a {depth}-layer ResNet learns {s.options.data}", accuracy >= 0.95, f"test accuracy {accuracy:.1%}")
    s.claim(
        "it trains as fast as with jax.grad (at least 0.95)",
        ratio >= 0.95,
        f"{speed['admodes']:.0f} steps/s, {ratio:.3f} of jax.grad's {speed['jax.grad']:.0f}",
    )


if __name__ == "__main__":
    story.run(tell, options=options)
