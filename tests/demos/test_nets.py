"""The nets of the demos: shapes, statistics, gradients against JAX's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import admodes

import nets

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((6, 64)), jnp.float32)
Y = jnp.asarray(RNG.integers(0, 10, 6))
DEEP = {
    "plain": nets.Deep(4, width=8),
    "skip": nets.Deep(4, "skip", 8),
    "resnet": nets.Deep(4, "resnet", 8),
    "densenet": nets.Deep(10, "densenet", 8),
    "batch norm": nets.Deep(4, width=8, activation="sigmoid", batch_norm=True),
}


def written_out(net, params, x):
    """The same nets as loops over their blocks, in the words of their definitions."""
    h, _ = nets.ACTIVATIONS[net.activation]
    a = x @ params["first"]["w"]
    for k in range(net.blocks):
        w = [p["w"][k] for p in params["blocks"]]
        if net.kind == "plain":
            z = a @ w[0]
            if net.batch_norm:
                z = (z - z.mean(0)) / jnp.sqrt(z.var(0) + 1e-5)
            a = h(z)
        elif net.kind == "skip":
            a = a + h(a @ w[0])
        elif net.kind == "resnet":
            a = h(a + h(a @ w[0]) @ w[1])
        else:
            seen = [a]
            for v in w[:-1]:
                seen.append(h(jnp.concatenate(seen, 1) @ v))
            a = h(jnp.concatenate(seen, 1) @ w[-1])
    return a @ params["last"]["w"]


@pytest.mark.parametrize("net", DEEP.values(), ids=DEEP)
def test_deep_nets_are_what_they_say_and_their_gradients_are_jaxs(net):
    params = net.init(np.random.default_rng(1))
    np.testing.assert_allclose(net(params, X), written_out(net, params, X), rtol=1e-4, atol=1e-5)

    def loss(params):
        return nets.cross_entropy(net(params, X), Y)

    ours, theirs = admodes.grad(loss)(params), jax.grad(loss)(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, theirs)
    by_layer = nets.layer_gradients(net, params, X, Y)
    assert by_layer.shape == (net.depth,)
    assert float(by_layer.min()) > 0


def test_the_gradient_at_a_layer_is_that_of_its_activation():
    net = DEEP["plain"]
    params = net.init(np.random.default_rng(1))
    last = params["last"]["w"]

    def from_last_activation(a):
        return len(Y) * nets.cross_entropy(a @ last, Y)

    a = X @ params["first"]["w"]
    for k in range(net.depth):
        a = jax.nn.relu(a @ params["blocks"][0]["w"][k])
    expected = jnp.abs(jax.grad(from_last_activation)(a)).sum(1).mean()
    np.testing.assert_allclose(nets.layer_gradients(net, params, X, Y)[-1], expected, rtol=1e-4)


def test_a_depth_that_is_no_number_of_blocks_is_refused():
    with pytest.raises(ValueError, match="blocks of 5 layers"):
        nets.Deep(12, "densenet").init(RNG)


def test_batch_norm_by_given_moments_does_not_depend_on_the_batch():
    net = DEEP["batch norm"]
    params = net.init(np.random.default_rng(1))
    moments = net.moments(params, X)
    np.testing.assert_allclose(net(params, X, moments), net(params, X), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(net(params, X[:2], moments), net(params, X, moments)[:2], rtol=1e-4, atol=1e-6)
    assert DEEP["plain"].moments(params, X) is None


def test_dropout_keeps_the_mean_and_drops_the_rate():
    dropped = nets.dropout(jax.random.key(0), jnp.ones(100_000), 0.25)
    assert abs(float(jnp.mean(dropped)) - 1) < 0.01
    assert abs(float(jnp.mean(dropped == 0)) - 0.25) < 0.01
    net = nets.MLP((64, 16, 10))
    params = net.init(np.random.default_rng(1))
    assert not np.array_equal(net(params, X), net(params, X, jax.random.key(0)))


@pytest.mark.parametrize(("activation", "gain"), [("relu", 2.0), ("sigmoid", 1.0)])
def test_weights_have_the_variance_that_goes_with_the_activation(activation, gain):
    (layer, _) = nets.MLP((400, 300, 2), activation).init(np.random.default_rng(0))
    assert abs(float(jnp.var(layer["w"])) * 400 / gain - 1) < 0.02
    assert layer["w"].dtype == jnp.float32


def test_descend_does_the_steps_of_optax():
    optimiser = optax.sgd(0.1, 0.9)
    loss = lambda w, target: jnp.sum((w - target) ** 2)
    targets = jnp.arange(6.0).reshape(3, 2)
    w, state = jnp.ones(2), optimiser.init(jnp.ones(2))
    found, _, losses = nets.descend(loss, optimiser)(w, state, targets)
    for k, target in enumerate(targets):
        assert losses[k] == loss(w, target)
        updates, state = optimiser.update(2 * (w - target), state, w)
        w = optax.apply_updates(w, updates)
    np.testing.assert_allclose(found, w, rtol=1e-12)
