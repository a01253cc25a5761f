"""What is kept in the cache folder: for whom, what damage does, and that nothing is measured inside of a trace."""

import functools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import admodes
from admodes.planner.choice import decision
from admodes.planner.cost import cache_folder, timings
from admodes.planner.cost import machine as machines

X = jnp.linspace(0.2, 1.0, 6)
DAMAGE = {
    "text": b"garbage",
    "empty": b"",
    "list": b"[]",
    "no identity": b"{}",
    "zeros": bytes(100),
    "not UTF-8": b"\xff\xfe\xfd",
    "nested": b"[" * 100_000,
    "nested objects": b'{"identity":' * 50_000,
    "long number": b"1" * 10_000,
    "huge": b" " * 2**21 + b"{}",
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADMODES_CACHE", str(tmp_path))


@pytest.fixture
def clock(monkeypatch):
    """A clock that tells another time whenever it measures constants; the list of what it was asked for."""
    asked = []
    monkeypatch.setattr(machines, "best_seconds", lambda fun, args: asked.append(fun) or 1e-3 * (1 + len(asked) / 99))
    return asked


def other(monkeypatch, **differences):
    """Let this be another machine, or another version of JAX."""
    own = cache_folder.identity()
    monkeypatch.setattr(cache_folder, "identity", lambda: own | differences)


def overwrite(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_bytes(content)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def f(x):
    return jnp.sum(jnp.sin(x) * x[::-1])


# -- side by side ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "difference",
    [{"jax": "99.0.1"}, {"device": "NVIDIA H200"}, {"backend": "gpu"}, {"host": "elsewhere"}, {"cpus": 10**4}],
)
def test_each_identity_has_constants_of_its_own(difference, clock, monkeypatch):
    assert machines.machine() == machines.NOMINAL
    mine = machines.calibrate()
    with monkeypatch.context() as elsewhere:
        other(elsewhere, **difference)
        assert machines.machine() == machines.NOMINAL
        theirs = machines.calibrate()
        assert machines.machine() == theirs != mine
    measurements = len(clock)
    assert machines.machine() == mine
    assert mine.measured
    assert len(clock) == measurements


def test_each_identity_has_measured_times_of_its_own(monkeypatch):
    timings.remember("abc", "dense", {"forward": 1.0})
    timings.remember("abc", "dense", {"reverse": 2.0})
    with monkeypatch.context() as elsewhere:
        other(elsewhere, jax="99.0.1")
        assert timings.recall("abc", "dense") == {}
        timings.remember("abc", "dense", {"forward": 3.0})
    assert timings.recall("abc", "dense") == {"forward": 1.0, "reverse": 2.0}


def test_folders_tell_people_and_differ_for_sure(tmp_path, monkeypatch):
    folder = cache_folder.file()
    assert folder.parent == tmp_path
    assert f"jax-{jax.__version__}-" in folder.name
    other(monkeypatch, device="a/b:c " * 100, host="\u00fc")
    assert cache_folder.file() != folder
    assert len(cache_folder.file("machine.json").parent.name) < 120
    cache_folder.write(cache_folder.file("machine.json"), constants={})
    assert cache_folder.read(cache_folder.file("machine.json"), lambda data: data["constants"]) == {}


def test_files_of_the_former_layout_are_left_alone(tmp_path):
    for old in (tmp_path / "machine.json", tmp_path / "measured" / "abc-dense.json"):
        overwrite(old, b"garbage")
    assert machines.machine() == machines.NOMINAL
    assert timings.recall("abc", "dense") == {}
    assert (tmp_path / "machine.json").read_bytes() == b"garbage"


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in ("ADMODES_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert machines.machine() == machines.NOMINAL
    assert timings.recall("abc", "dense") == {}
    with pytest.warns(UserWarning, match="ADMODES_CACHE"):
        timings.remember("abc", "dense", {"forward": 1.0})
    with pytest.raises(OSError, match="ADMODES_CACHE"):
        machines.calibrate()


# -- damage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_replaced(damage, clock):
    good, path = machines.calibrate(), cache_folder.file("machine.json")
    overwrite(path, damage)
    with pytest.warns(UserWarning, match="unreadable"):
        again = machines.machine()
    assert again.measured
    assert again != good
    assert machines.machine() == again

    timings.remember("abc", "dense", {"forward": 1.0})
    overwrite(cache_folder.file("measured", "abc-dense.json"), damage)
    with pytest.warns(UserWarning, match="lost"):
        assert timings.recall("abc", "dense") == {}
    timings.remember("abc", "dense", {"reverse": 2.0})
    assert timings.recall("abc", "dense") == {"reverse": 2.0}


@pytest.mark.parametrize("value", [-1.0, 0, None, "1e-9", True, [], {}, float("nan"), 10**400])
def test_constants_and_times_that_cannot_be_are_damage(value, clock):
    machines.calibrate()
    path = cache_folder.file("machine.json")
    data = json.loads(path.read_text())
    data["constants"]["byte"] = value
    overwrite(path, json.dumps(data).encode())
    with pytest.warns(UserWarning, match="unreadable"):
        assert machines.machine().measured
    if value is not True:
        timings.remember("abc", "dense", {"forward": value})
        with pytest.warns(UserWarning, match="lost"):
            assert timings.recall("abc", "dense") == {}


def test_a_file_of_another_identity_is_damage(clock, monkeypatch):
    with monkeypatch.context() as elsewhere:
        other(elsewhere, jax="99.0.1")
        machines.calibrate()
        copied = cache_folder.file("machine.json").read_bytes()
    overwrite(cache_folder.file("machine.json"), copied)
    with pytest.warns(UserWarning, match="unreadable"):
        machines.machine()
    assert json.loads(cache_folder.file("machine.json").read_text())["identity"] == cache_folder.identity()


def test_what_cannot_be_replaced_is_no_error(clock):
    cache_folder.file("machine.json").mkdir(parents=True)
    with pytest.warns(UserWarning, match="unreadable"), pytest.warns(UserWarning, match="cannot be kept"):
        assert machines.machine() == machines.NOMINAL
    assert machines.machine() == machines.NOMINAL
    cache_folder.file("measured", "abc-dense.json").mkdir(parents=True)
    with pytest.warns(UserWarning, match="lost"):
        assert timings.recall("abc", "dense") == {}


def test_a_plan_with_a_damaged_cache():
    run = lambda: admodes.jacobian(lambda x: jnp.sin(x) * x[::-1], measure=True)(X)
    expected = run()
    (path,) = cache_folder.file("measured").iterdir()
    overwrite(path, DAMAGE["nested"])
    decision._DECISIONS.entries.clear()
    with pytest.warns(UserWarning, match="lost"):
        np.testing.assert_array_equal(run(), expected)
    assert json.loads(path.read_text())["seconds"]


# -- inside of traces --------------------------------------------------------------------------------

TRANSFORMS = {
    "jit": jax.jit,
    "vmap": lambda fun: lambda x: jax.vmap(fun)(x[None])[0],
    "jit of vmap": lambda fun: lambda x: jax.jit(jax.vmap(fun))(x[None])[0],
    "vmap of jit": lambda fun: lambda x: jax.vmap(jax.jit(fun))(x[None])[0],
    "named": lambda fun: lambda x: jax.vmap(fun, axis_name="i")(x[None])[0],
    "jvp": lambda fun: lambda x: jax.jvp(fun, (x,), (x,))[0],
    "jvp in jit": lambda fun: jax.jit(lambda x: jax.jvp(fun, (x,), (x,))[0]),
    "our jvp": lambda fun: lambda x: admodes.jvp(fun, (x,), (x,))[0],
    "our tape in jit": lambda fun: jax.jit(lambda x: admodes.vjp(fun, x)[0]),
    "our grad": lambda fun: lambda x: admodes.value_and_grad(lambda x: jnp.sum(fun(x)))(x)[0],
    "checkpoint": jax.checkpoint,
    "scan": lambda fun: lambda x: jax.lax.scan(lambda c, x: (c, fun(x)), 0.0, x[None])[1][0],
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_nothing_is_measured_while_a_function_is_traced(transform, clock, monkeypatch):
    def measuring(*_, **__):
        raise AssertionError("measured inside of a trace")

    overwrite(cache_folder.file("machine.json"), b"garbage")
    with monkeypatch.context() as patch:
        patch.setattr(machines, "best_seconds", measuring)
        patch.setattr(decision, "seconds_of", measuring)
        for fun in (
            admodes.laplacian(f),
            admodes.hessian(f),
            admodes.jacobian(f, measure=True),
            lambda x: x[0] * admodes.jacobian(f, measure=True)(X),  # at values, in the midst of a trace
            lambda x: x[0] * admodes.jacobian(f, memory_limit="1MB")(X),
            admodes.jacobian(f, memory_limit="1MB"),
            admodes.grad(f, memory_limit="1MB"),
            lambda x: x[0] * admodes.grad(f, memory_limit="1MB")(X),
        ):
            transform(fun)(X)
    with pytest.warns(UserWarning, match="unreadable"):
        assert machines.machine().measured  # as soon as nothing is traced


def test_a_plan_made_inside_of_a_trace_is_not_the_measured_one(monkeypatch):
    asked = []
    monkeypatch.setattr(decision, "seconds_of", lambda run, leaves: asked.append(run) or 1e-3)
    jacobian = admodes.jacobian(functools.partial(lambda fun, x: fun(x), f), measure=True)
    jax.vmap(lambda y: y * jacobian(X)[0])(X)
    assert not asked
    jacobian(X)
    assert asked


def test_tests_have_a_cache_folder_of_their_own(monkeypatch):
    monkeypatch.undo()
    assert "admodes-tests-" in str(cache_folder.directory())
