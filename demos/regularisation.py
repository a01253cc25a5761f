"""Regularisation: a net learns wrong labels by heart unless weights, time or units are taken from it.

A perceptron on 400 digits of which a fifth have a wrong label: L2, L1, L2 on one layer only, early stopping, dropout
and AdamW. The strength of each is chosen on 200 further examples, as noisy; the test labels are clean.
"""

from collections.abc import Callable
from dataclasses import dataclass

import story

import jax
import jax.numpy as jnp
import numpy as np
import optax

import admodes

import data
import nets

EXAMPLES, HELD_OUT, BATCH, NOISE = 400, 200, 50, 0.2
NET = nets.MLP((64, 100, 100, 10))


def l2(*weights):
    return sum(jnp.sum(w * w) for w in weights)


def l1(*weights):
    return sum(jnp.sum(jnp.abs(w)) for w in weights)


@dataclass(frozen=True)
class Method:
    """What the strength does: it multiplies a penalty of the weight matrices, or is a dropout rate, or a decay."""

    strengths: tuple[float, ...]
    penalty: Callable | None = None
    dropout: bool = False
    decay: bool = False


METHODS = {
    "none": Method((0.0,)),
    "L2": Method((1e-3, 3e-3, 1e-2, 3e-2), l2),
    "L1": Method((1e-4, 3e-4, 1e-3, 3e-3), l1),
    "L2, first layer only": Method((1e-3, 3e-3, 1e-2, 3e-2), lambda first, *others: l2(first)),
    "L2, last layer only": Method((3e-3, 1e-2, 3e-2, 1e-1), lambda *others: l2(others[-1])),
    "dropout": Method((0.2, 0.4, 0.6, 0.8), dropout=True),
    "AdamW": Method((0.1, 0.3, 1.0, 3.0), decay=True),
}
SHOWN = {"none": story.BLACK, "L2": story.BLUE, "L1": story.SKY, "dropout": story.GREEN, "AdamW": story.PURPLE}


def train(method, settings, value_and_grad=admodes.value_and_grad):
    """Losses of each step, and errors by epoch on the three sets: arrays of shapes (strengths, seeds, ...)."""

    def run(strength, setting):
        params, order, keys, sets = setting

        def loss(params, given):
            batch, key = given
            x, y = sets["training"]
            logits = NET(params, x[batch], key if method.dropout else None, strength)
            penalty = strength * method.penalty(*[p["w"] for p in params]) if method.penalty else 0.0
            return nets.cross_entropy(logits, y[batch]) + penalty

        optimiser = optax.adamw(2e-3, weight_decay=strength if method.decay else 0.0)
        steps = nets.descend(loss, optimiser, value_and_grad)

        def epoch(carry, given):
            *carry, losses = steps(*carry, given)
            errors = {name: 1 - nets.accuracy(NET(carry[0], x), y) for name, (x, y) in sets.items()}
            return tuple(carry), (losses, errors)

        _, (losses, errors) = jax.lax.scan(epoch, (params, optimiser.init(params)), (order, keys))
        return losses.reshape(-1), errors

    all_runs = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))
    return jax.tree.map(np.asarray, all_runs(jnp.asarray(method.strengths), settings))


def setting(s, seed, epochs):
    """Initial parameters, minibatches with their random keys, and the three sets, of one seed."""
    noisy = data.digits(s.rng(0, seed)).take(EXAMPLES + HELD_OUT).corrupted(NOISE, s.rng(1, seed))
    sets = {
        "training": (noisy.x[:EXAMPLES], noisy.y[:EXAMPLES]),
        "held_out": (noisy.x[EXAMPLES:], noisy.y[EXAMPLES:]),
        "test": (noisy.x_test, noisy.y_test),
    }
    order = data.batches(s.rng(2, seed), EXAMPLES, BATCH, epochs)
    return NET.init(s.rng(3, seed)), order, jax.random.split(s.key(seed), order.shape[:2]), sets


def tell(s):
    epochs, seeds = s.scaled(2, 60, 200), s.scaled(1, 5, 20)
    settings = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[setting(s, seed, epochs) for seed in range(seeds)])
    best, rows, losses = {}, [], {}
    for name, method in s.track(METHODS.items(), "methods"):
        s.say(name)
        losses[name], errors = train(method, settings)
        chosen = int(errors["held_out"][:, :, -1].mean(1).argmin())
        best[name] = {which: values[chosen] for which, values in errors.items()}
        for k, strength in enumerate(method.strengths):
            for seed in range(seeds):
                ends = {which: values[k, seed, -1] for which, values in errors.items()}
                rows.append({"method": name, "strength": strength, "chosen": k == chosen, "seed": seed, **ends})
    s.table("errors", rows)
    plain = best["none"]
    stop = plain["held_out"].argmin(axis=1)
    test = {name: found["test"][:, -1] for name, found in best.items()}
    test["early stopping"] = plain["test"][np.arange(seeds), stop]
    s.table(
        "early-stopping",
        [{"seed": k, "epoch": stop[k] + 1, "test": test["early stopping"][k]} for k in range(seeds)],
    )
    jaxs, _ = train(METHODS["L2"], settings, jax.value_and_grad)

    figure, ((a, b), (c, d)) = story.panels(2, 2, width=5.6)
    at = np.arange(1, epochs + 1)
    for colour, (which, label) in zip(
        (story.VERMILION, story.ORANGE, story.BLACK),
        (
            ("training", "training, 20% wrong labels"),
            ("held_out", "held out, 20% wrong"),
            ("test", "test, clean labels"),
        ),
    ):
        band(a, at, 100 * plain[which], colour, label)
    a.axvline(stop.mean() + 1, color="grey", linestyle=":", label="early stopping (mean)")
    a.set(xlabel="epoch", ylabel="error in %", ylim=(0, None), title="without regularisation")
    a.legend()
    for name, colour in SHOWN.items():
        band(b, at, 100 * best[name]["test"], colour, name)
    b.set(xlabel="epoch", ylabel="test error in %", title="each at the strength chosen on held-out examples")
    b.set_ylim(0, 100 * max(best[name]["test"][:, epochs // 10 :].max() for name in SHOWN) * 1.1)
    b.legend(ncols=2)
    ranked = sorted(test, key=lambda name: -test[name].mean())
    for k, name in enumerate(ranked):
        c.barh(k, 100 * test[name].mean(), color=SHOWN.get(name, story.ORANGE), alpha=0.75)
        c.plot(100 * test[name], np.full(seeds, k), "o", color="white", markeredgecolor=story.BLACK, markersize=4)
    c.set_yticks(range(len(ranked)), ranked)
    c.set(xlabel="test error in %", title=f"at the end: mean, and the {seeds} seeds")
    s.coincide(d, losses["L2"][0, 0], jaxs[0, 0], f"L2, strength {METHODS['L2'].strengths[0]:g}")
    before, after = (test[name].mean() for name in ("none", ranked[-1]))
    s.figure(figure, f"With 20% wrong labels {ranked[-1]} brings the test error from {before:.0%} to {after:.0%}")

    memorised = plain["training"][:, -1].mean()
    s.claim(
        "without regularisation the wrong labels are learnt by heart",
        memorised < 0.02,
        f"training error {memorised:.1%}",
    )
    least = plain["test"].min(axis=1)
    s.claim(
        "its test error rises again while the training error falls",
        (test["none"] - least).mean() > 0.02,
        f"from {least.mean():.1%} to {test['none'].mean():.1%}",
    )
    for name in (name for name in ranked[::-1] if name != "none" and "layer" not in name):
        gain = test["none"] - test[name]
        better = f"by {gain.mean():.1%} on average, for {int((gain > 0).sum())} of {seeds} seeds"
        s.claim(f"{name} lowers the test error", gain.mean() > 0, f"to {test[name].mean():.1%}, {better}")
    first, last = (test[f"L2, {which} layer only"].mean() for which in ("first", "last"))
    s.claim(
        "where the penalty goes matters: on one layer only it does less than on all",
        test["L2"].mean() < min(first, last),
        f"first {first:.1%}, last {last:.1%}, all {test['L2'].mean():.1%}",
    )


def band(axes, x, values, colour, label):
    """The mean over seeds, and the range they span."""
    axes.plot(x, values.mean(0), color=colour, label=label)
    axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.15)


if __name__ == "__main__":
    story.run(tell)
