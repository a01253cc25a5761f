"""Settings for every test: 64-bit values, reproducible compilation, nothing from the user's cache folder.

They must come before JAX starts its backend.
"""

import os
import shutil
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

# Batched LAPACK calls can block the concurrency-optimized scheduler for ever on two cores; with excess precision
# 16-bit intermediates would be kept in 32 bits, and comparisons of 16-bit results would depend on fusion.
# Four devices are for shard_map. Most of the time goes into compiling programs that run once: without the fusion
# emitters that takes half as long (fusion itself and memory, all that tests look at, are as ever).
FLAGS = (
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    "--xla_allow_excess_precision=false",
    "--xla_force_host_platform_device_count=4",
)
BEFORE_0_11 = ("--xla_cpu_use_fusion_emitters=false",)  # later versions do not know it, and end the process
OLD = tuple(map(int, version("jax").split(".")[:2])) < (0, 11)
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS, *(BEFORE_0_11 if OLD else ())]).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["ADMODES_CACHE"] = CACHE = tempfile.mkdtemp(prefix="admodes-tests-")  # one for each process of pytest

import jax  # noqa: E402  (reads the environment)
import pytest  # noqa: E402

from admodes.planner.choice import trial  # noqa: E402

jax.config.update("jax_enable_x64", True)
trial.WITHIN = 0.0  # predictions choose, so that tests do not depend on what else the machine does


RULES = {
    "rules",
    "subprograms",
    "checkpointing",
    "series",
}  # most of the time of these tests is compilation of code that runs once


@pytest.fixture(autouse=True, scope="module")
def quick_compilation(request):
    """Compilation without most optimizations for the tests of rules."""
    jax.config.update(
        "jax_disable_most_optimizations", request.path.parent.name in RULES and "tests" in request.path.parts
    )
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.hookimpl(tryfirst=True)  # before pytest deselects what is slow
def pytest_collection_modifyitems(items):
    """Each n-th case of a test that is marked with ``every(n)`` is run by default; a stride that shares no divisor with
    the numbers of parameters meets all of them."""
    met: Counter = Counter()
    for item in items:
        if mark := item.get_closest_marker("every"):
            test = item.path, item.originalname
            if met[test] % mark.args[0]:
                item.add_marker(pytest.mark.slow)
            met[test] += 1


def pytest_unconfigure():
    shutil.rmtree(CACHE, ignore_errors=True)


def pytest_ignore_collect(collection_path, config):
    """The tests of client libraries take long, and run where they are asked for: ``pytest tests/clients``."""
    asked = any("clients" in Path(argument).parts for argument in config.args)
    return True if collection_path.name == "clients" and not asked else None
