"""blackjax and numpyro: log densities, ELBOs and steps of samplers, and NUTS with ours in JAX's place."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import admodes
from admodes import stand_in
from tests.clients.derivatives import EVERY, Case, client, every_derivative

blackjax, numpyro = client("blackjax"), client("numpyro")

from numpyro import distributions as dist  # noqa: E402
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO  # noqa: E402
from numpyro.infer.autoguide import AutoNormal  # noqa: E402
from numpyro.infer.util import initialize_model  # noqa: E402

U = jnp.array([[0.2, -1.0], [1.3, 0.4], [-0.5, 0.8]])
Y = jnp.array([0.3, 1.9, 0.1])


def model(u, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    scale = numpyro.sample("scale", dist.HalfCauchy(1.0))
    share = numpyro.sample("share", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("data", 3):
        numpyro.sample("y", dist.StudentT(4.0, u @ (w * share), scale), obs=y)


def potential():
    info = initialize_model(jax.random.key(0), model, model_args=(U, Y))
    return info.potential_fn, info.param_info.z


POTENTIAL, START = potential()
SUPPORT = {
    "gamma": lambda p: dist.Gamma(p[0], p[1]).log_prob(0.7),
    "beta": lambda p: dist.Beta(p[0], p[1]).log_prob(0.4),
    "lkj": lambda p: dist.LKJCholesky(2, p[0]).log_prob(jnp.array([[1.0, 0.0], [0.6, 0.8]])) * p[1],
    "mixture": lambda p: dist.MixtureSameFamily(
        dist.Categorical(probs=p / jnp.sum(p)), dist.Normal(p, p[0] + p[1])
    ).log_prob(0.3),
    "gamma-sample": lambda p: dist.Gamma(p[0], p[1]).sample(jax.random.key(1), (2,)),
    "transformed": lambda p: dist.TransformedDistribution(
        dist.Normal(p[0], p[1]), [dist.transforms.SigmoidTransform(), dist.transforms.AffineTransform(0.0, p[1])]
    ).log_prob(0.4),
}


def elbo():
    guide = AutoNormal(model)
    svi = SVI(model, guide, numpyro.optim.Adam(0.1), Trace_ELBO())
    parameters = svi.get_params(svi.init(jax.random.key(0), U, Y))
    return lambda p: Trace_ELBO().loss(jax.random.key(1), p, model, guide, U, Y), parameters


def density(q):
    return -jnp.sum(q**4) - 0.5 * q[0] * q[1] + jnp.sin(q[0])


def leapfrog(q):
    """The state after steps of Hamiltonian dynamics, which contain gradients by JAX."""
    step = blackjax.mcmc.integrators.velocity_verlet(
        density, blackjax.mcmc.metrics.default_metric(jnp.ones(2)).kinetic_energy
    )
    state = blackjax.mcmc.integrators.new_integrator_state(density, q, jnp.array([0.3, -0.6]))
    for _ in range(3):
        state = step(state, 0.1)
    return state.position, state.momentum


CASES = [
    Case("numpyro-potential", POTENTIAL, START, EVERY),
    Case("numpyro-elbo", *elbo()),
    *(Case(f"numpyro-{name}", fun, jnp.array([1.4, 2.2])) for name, fun in SUPPORT.items()),
    Case("blackjax-leapfrog", leapfrog, jnp.array([0.5, -0.3])),
]


@every_derivative(CASES)
def test_derivatives(case, way):
    way(case)


def count_calls(monkeypatch):
    calls: dict = {}

    def counted(name, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            calls[name] = calls.get(name, 0) + 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(stand_in, "_OURS", {n: counted(n, function) for n, function in stand_in._OURS.items()})
    return calls


def same_inside(run, monkeypatch):
    """``run`` gives the same numbers with ours in JAX's place, and ours it is that ran."""
    calls = count_calls(monkeypatch)
    expected = run()
    assert not calls
    with admodes.as_jax():
        actual = run()
    assert calls, "ours did not run"
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-9), actual, expected)


def test_nuts_of_numpyro_gives_the_same_samples(monkeypatch):
    def run():
        sampler = MCMC(NUTS(model), num_warmup=5, num_samples=5, progress_bar=False)
        sampler.run(jax.random.key(0), U, y=Y)
        return sampler.get_samples()

    same_inside(run, monkeypatch)


def test_svi_of_numpyro_gives_the_same_losses(monkeypatch):
    def run():
        svi = SVI(model, AutoNormal(model), numpyro.optim.Adam(0.1), Trace_ELBO())
        return svi.run(jax.random.key(0), 5, U, Y, progress_bar=False).losses

    same_inside(run, monkeypatch)


def test_nuts_of_blackjax_gives_the_same_samples(monkeypatch):
    def run():
        sampler = blackjax.nuts(density, step_size=0.2, inverse_mass_matrix=jnp.ones(2))
        state, positions = sampler.init(jnp.array([0.5, -0.3])), []
        step = jax.jit(sampler.step)
        for k in range(3):
            state, _ = step(jax.random.key(k), state)
            positions.append(state.position)
        return positions

    same_inside(run, monkeypatch)
