"""Accuracy against mpmath: what counts as lost, and the functions that JAX loses."""

import numpy as np
import pytest

from admodes.compare.bench import accuracy as bench
from admodes.compare.bench.accuracy import FORMATS, points

mpmath = pytest.importorskip("mpmath")


@pytest.fixture(scope="module")
def measured():
    lines = []
    result = bench.bench_accuracy(["tanh", "logistic", "digamma"], formats=["float32"], progress=lines.append)
    assert lines == ["tanh", "logistic", "digamma"]
    return result


def test_jax_loses_what_we_keep(measured):
    cases = {(case.function, case.order): case for case in measured.measured}
    assert cases["logistic", "first"].jax.lost
    assert cases["digamma", "first"].jax.lost
    for case in measured.measured:
        assert case.admodes.lost == 0 or case.order == "second", case
        assert not case.worse, case
    lost, _, worse = measured.goals()
    assert lost.met
    assert worse.met
    assert measured.worst("jax")[0].jax.lost


def test_tables_fit_a_terminal(measured):
    text = str(measured)
    assert max(map(len, text.splitlines())) <= 80
    assert "The worst ten of JAX" in text


def test_derivatives_of_the_table_are_those_of_its_values():
    """Each closed form against differences of many digits, at points of ordinary size."""
    from admodes.compare.bench.exact import functions

    with mpmath.workdps(40):
        for name, function in functions(mpmath).items():
            low, high = max(function.low, -3), min(function.high, 3)
            for part in (0.21, 0.63, 0.87):
                x = mpmath.mpf(low + part * (high - low))
                value = lambda x, function=function: function.exact(x)[0]
                for order, found in enumerate(function.exact(x)[1:], 1):
                    assert mpmath.almosteq(found, mpmath.diff(value, x, order), 1e-9), (name, x, order)


@pytest.mark.parametrize("dtype", FORMATS)
def test_points_are_in_the_domain_and_reach_its_ends(dtype):
    import jax.numpy as jnp

    from admodes.compare.bench.exact import functions

    info = jnp.finfo(dtype)
    xs = points(functions(mpmath)["tanh"], jnp.dtype(dtype))
    assert xs.max() > float(info.max) / 4
    assert np.abs(xs).min() <= 4 * float(info.tiny)
    xs = points(functions(mpmath)["atanh"], jnp.dtype(dtype))
    assert 1 - 16 * float(info.eps) <= xs.max() < 1


def test_without_mpmath_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(bench, "without_mpmath", lambda: "mpmath is not installed")
    lines = []
    assert bench.bench_accuracy(progress=lines.append).cases == ()
    assert lines == ["skipped: mpmath is not installed"]
