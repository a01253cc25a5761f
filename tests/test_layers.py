"""The order of the parts, and who may call what: checked on the syntax trees, so that no import is missed."""

import ast
import os
import subprocess
import sys
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "admodes"
FILES = sorted(ROOT.rglob("*.py"))

LAYERS = (
    ("errors", "text_tables"),
    ("program",),
    ("compilers",),
    ("linear",),
    ("rules",),
    ("subprograms",),
    ("checkpointing",),
    ("modes",),
    ("nonsmooth", "memory", "series"),
    ("transforms",),
    ("diagnosis", "sparse"),
    ("planner.cost",),
    ("planner.sweeps",),
    ("planner",),  # the task and the matrices, which all rooms below share
    ("planner.elimination",),
    ("planner.ways",),
    ("planner.choice",),
    ("planner.calls",),
    ("explain", "draw", "problems"),
    ("compare",),
    ("stand_in",),
    ("advisor",),
    ("cli",),
    ("__main__",),
    ("__init__",),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
MAY_IMPORT_THE_PACKAGE = {"compare", "cli", "__main__"}

DIFFERENTIATION = {
    "jvp",
    "vjp",
    "grad",
    "value_and_grad",
    "linearize",
    "linear_transpose",
    "jacfwd",
    "jacrev",
    "jacobian",
    "hessian",
    "fwd_and_bwd",
    "vjp3",
}
FORBIDDEN_MODULES = (
    "jax._src.interpreters.ad",
    "jax.interpreters.ad",
    "jax.experimental.jet",
    "jax._src.api",
    "jax.test_util",
    "jax._src.public_test_util",
)

# what a library registered for primitives of its own is looked up in these tables
REGISTERED = ROOT / "program" / "jax_compat" / "registered.py"
TABLES = {
    f"jax.interpreters.ad.{name}" for name in ("UndefinedPrimal", "Zero", "primitive_jvps", "primitive_transposes")
}


def part_of(file: Path) -> str:
    """The part of the package that a file belongs to."""
    return part_named(file.relative_to(ROOT).with_suffix("").parts)


def part_named(names: Sequence[str]) -> str:
    """The part that a dotted name below ``admodes`` belongs to: a room of it if there is one."""
    room = ".".join(names[:2])
    return room if room in RANK else names[0]


def names_imported(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, dotted name) of everything imported, ``from a import b`` as ``a.b``, wherever in the file it happens."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def names_used(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, dotted name) of every attribute chain that starts at a name, with import aliases written out."""
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom):
            aliases.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    found = []
    for node in ast.walk(tree):
        chain, at = [], node
        while isinstance(at, ast.Attribute):
            chain.append(at.attr)
            at = at.value
        if chain and isinstance(at, ast.Name):
            found.append((node.lineno, ".".join([aliases.get(at.id, at.id), *reversed(chain)])))
    return found


def calls_jax_differentiation(name: str) -> bool:
    module, _, last = name.rpartition(".")
    if module in ("jax", "jax._src.api", "jax.custom_derivatives") and last in DIFFERENTIATION:
        return True
    return any(name == forbidden or name.startswith(forbidden + ".") for forbidden in FORBIDDEN_MODULES)


def parse(file: Path) -> ast.AST:
    return ast.parse(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_lower_parts_never_import_higher_ones(file):
    part = part_of(file)
    assert part in RANK, f"'{part}' is a new part of the package: enter it in LAYERS, where it stands"
    for line, name in names_imported(parse(file)):
        top, *rest = name.split(".")
        if top != "admodes":
            continue
        other = part_named(rest) if rest else ""
        if other not in RANK:
            assert part in MAY_IMPORT_THE_PACKAGE, f"{file}:{line} imports the whole package"
            continue
        allowed = other == part or RANK[other] < RANK[part]
        assert allowed, f"{file}:{line}: '{part}' imports '{other}', which stands above or beside it"


def module_of(file: Path) -> str:
    return ".".join(("admodes", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def test_no_imports_go_in_a_circle():
    """Wherever they stand: in a function, or for type checkers only. The package itself may import all of its parts."""
    modules = {module_of(file): parse(file) for file in FILES if file.parent != ROOT or file.stem != "__init__"}
    imports = {
        module: {name if name in modules else name.rpartition(".")[0] for _, name in names_imported(tree)}
        for module, tree in modules.items()
    }
    graph = {module: {other for other in others if other in modules} - {module} for module, others in imports.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("file", [f for f in FILES if part_of(f) != "compare"], ids=lambda f: str(f.relative_to(ROOT)))
def test_only_compare_calls_jax_differentiation(file):
    tree = parse(file)
    allowed = TABLES if file == REGISTERED else set()
    for line, name in names_imported(tree) + names_used(tree):
        accessor = any(name == table or name.startswith(f"{table}.") for table in allowed)
        assert accessor or not calls_jax_differentiation(name), f"{file}:{line} uses {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_only_jax_compat_touches_jax_internals(file):
    if file.parent == ROOT / "program" / "jax_compat":
        return
    tree = parse(file)
    for line, name in names_imported(tree) + names_used(tree):
        assert not name.startswith("jax._src"), f"{file}:{line} uses {name}"


@pytest.mark.parametrize(
    "source",
    [
        "import jax\njax.jvp(f, x, t)",
        "import jax as j\nj.grad(f)",
        "from jax import grad",
        "from jax import jacfwd as slope",
        "from jax.interpreters import ad",
        "import jax._src.interpreters.ad as ad",
        "from jax._src.interpreters import ad\nad.primitive_jvps",
        "from jax.experimental.jet import jet",
        "from jax.experimental import jet",
        "def f():\n    import jax\n    return jax.vjp",
    ],
)
def test_the_check_sees_every_way_to_call_jax_differentiation(source):
    tree = ast.parse(source)
    assert any(calls_jax_differentiation(name) for _, name in names_imported(tree) + names_used(tree))


def python(code: str, cache: Path) -> str:
    """What a fresh interpreter prints; its bytecode is cached in ``cache``, as that of an installed package is."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(cache)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_costs_at_most_a_tenth_of_a_second(tmp_path):
    code = """if True:
        import time
        t0 = time.process_time()
        import jax
        t1 = time.process_time()
        import admodes
        print(t1 - t0, time.process_time() - t1)
    """
    python(code, tmp_path)
    times = [tuple(map(float, python(code, tmp_path).split())) for _ in range(3)]
    slow_machine = min(jax for jax, _ in times) / 5
    assert min(ours for _, ours in times) < max(0.1, slow_machine), f"(jax, admodes) took {times} CPU seconds"


def test_import_does_no_work(tmp_path):
    code = """if True:
        import sys
        import jax
        before = dict(jax.config.values)
        import admodes
        assert jax.config.values == before, "the import changed jax.config"
        heavy = {"rich", "scipy", "matplotlib", "pytest"} & set(sys.modules)
        assert not heavy, f"the import loads {heavy}"
        from jax._src import xla_bridge
        assert not xla_bridge._backends, "the import started a backend"
    """
    python(code, tmp_path)
