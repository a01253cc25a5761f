"""The contact points: each object inside of JAX that this library takes hold of, and where it is found since when.

JAX promises nothing about them, and moves them. One table says where they are, so that a new version of JAX is a
matter of new rows, and so that a version that has moved them again is refused in one line, which says what is missing.

A row is (version, module, names): since that version the names are found in that module of ``jax._src`` (or in the
module of this full name, if it begins with ``jax.``). A later row for the same name holds from its version on. A name
may be found as another one (``Jaxpr as ClosedJaxpr``), and ``?`` marks one that some versions do not have: it is None
there, and a rule that is entered for it is left out.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import jax

from admodes.errors import UnsupportedJaxError

KNOWN = ("0.10.2", "0.11.2", "0.12.0.1")  # the versions on which the tests have passed

TABLE = (
    # -- jaxprs, traces and values
    ("0.10", "core", "Jaxpr ClosedJaxpr Literal Primitive ShapedArray Trace Tracer jaxpr_as_fun"),
    ("0.12", "core", "Jaxpr as ClosedJaxpr"),
    ("0.10", "core", "jaxprs_in_params set_current_trace take_current_trace trace_ctx trace_state_clean"),
    ("0.10", "core", "typeof to_concrete_value"),
    ("0.10", "core", "ConcretizationTypeError TracerIntegerConversionError typematch valid_jaxtype is_constant_dim"),
    ("0.10", "core", "TracerArrayConversionError"),
    ("0.10", "core", "AbstractToken ensure_no_leaks"),
    ("0.10", "core", "mapped_leading_aval unmapped_leading_aval get_cur_mesh_sharding internal_mutable_array_effect"),
    ("0.10", "interpreters.partial_eval", "trace_to_jaxpr_dynamic DynamicJaxprTrace convert_constvars_jaxpr dce_jaxpr"),
    ("0.10", "interpreters.partial_eval", "ensure_enum Recompute DynamicJaxprTracer"),
    ("0.10", "linear_util", "wrap_init DebugInfo EqualStore Store WrappedFun"),
    ("0.10", "config", "trace_context"),
    ("0.10", "api_util", "debug_info check_callable fun_sourceinfo"),
    ("0.10", "traceback_util", "api_boundary register_exclusion as hide_frames"),
    ("0.10", "source_info_util", "current summarize is_user_filename register_exclusion user_context"),
    ("0.10", "effects", "remat_allowed_effects"),
    ("0.10", "util", "weakref_lru_cache Unhashable"),
    ("0.10", "ad_util", "Zero add_jaxvals instantiate zeros_like_aval"),
    ("0.10", "dtypes", "canonicalize_value dtype extended issubdtype"),
    ("0.10", "dispatch", "check_arg"),
    ("0.10", "literals", "TypedNdArray TypedInt TypedFloat TypedComplex"),
    ("0.10", "tree_util", "equality_errors_pytreedef default_registry as operand_registry"),
    ("0.12", "tree_util", "tracing_registry as operand_registry"),
    ("0.10", "sharding_impls", "UnspecifiedValue"),
    ("0.10", "lax.other", "logaddexp logaddexp2"),
    ("0.10", "numpy.lax_numpy", "_i0? i1_impl?"),
    ("0.10", "numpy.ufuncs", "sinc"),
    ("0.10", "scipy.linalg", "_sqrtm _sqrtm_triu"),
    # -- groups of operands and results
    ("0.10", "tree_util", "FlatTree"),
    ("0.11", "flattree", "FlatTree flatten as flatten_tree? pack as pack_trees? nones as tree_of_nones?"),
    # -- references
    ("0.10", "core", "ref_p as new_ref_p empty_ref_p free_ref_p freeze_p"),
    ("0.10", "state.discharge", "discharge_state run_state_p _discharge_rules _partial_discharge_rules?"),
    ("0.11", "state.discharge", "DischargeContext?"),
    ("0.10", "state.primitives", "addupdate_p get_p swap_p"),
    ("0.10", "state.types", "ReadEffect RefEffect"),
    # -- shard_map
    ("0.10", "shard_map", "shard_map_p _all_newly_manual_mesh_names _unmentioned2"),
    # -- meshes and processes
    ("0.10", "mesh", "get_concrete_mesh use_abstract_mesh empty_abstract_mesh"),
    ("0.10", "distributed", "global_state"),
    # -- calls, branches and loops
    ("0.10", "pjit", "jit_p layout_constraint_p reshard_p sharding_constraint_p"),
    ("0.10", "lax.control_flow.conditionals", "cond_p"),
    ("0.10", "lax.control_flow.loops", "scan_p while_p"),
    ("0.10", "lax.eval_jaxpr", "eval_jaxpr_p"),
    ("0.11", "core", "eval_jaxpr_p"),
    ("0.10", "ad_checkpoint", "name_p remat_p"),
    ("0.10", "compute_on", "compute_on_p"),
    ("0.10", "jax.experimental.scheduling_groups", "xla_metadata_call xla_metadata_call_p"),
    ("0.11", "xla_metadata", "xla_metadata_call_p"),
    # -- functions with rules of their own
    ("0.10", "custom_batching", "custom_vmap_p"),
    ("0.10", "custom_derivatives", "custom_jvp_call_p custom_vjp_call_p linear_call_p remat_opt_p"),
    ("0.10", "jax.custom_derivatives", "SymbolicZero"),
    # -- equations that are objects
    ("0.10", "hijax", "call_hi_primitive_p VJPHiPrimitive as HiPrim HiType CustomVJPTraced OptRemat VmapOf?"),
    ("0.11", "hijax", "HiPrim CustomJVPTraced?"),
    ("0.10", "ad_checkpoint", "CheckpointName CustomRemat? RematTraced"),
    ("0.10", "numpy.hijax", "Nonzero? SearchSorted?"),
    ("0.11", "lax.control_flow.solves", "CustomRoot? _RootLinearMap as RootLinearMap?"),
    ("0.12", "numpy.ufuncs", "Frexp? Ldexp? _hypot?"),
    ("0.10", "interpreters.ad", "ValAccum NullAccum"),
    ("0.11", "jax.experimental.hijax", "ValAccum NullAccum"),
    # -- calls out of the program
    ("0.10", "callback", "io_callback_p pure_callback_p"),
    ("0.10", "debugging", "debug_callback_p debug_print_p inspect_sharding_p"),
    ("0.10", "ffi", "ffi_call_p"),
    # -- primitives without a public name
    ("0.10", "ad_util", "add_jaxvals_p as add_any_p stop_gradient_p"),
    ("0.10", "core", "pvary_p reduced_vary_cast_p stage_p?"),
    ("0.10", "lax.lax", "composite_p dce_sink_p ragged_dot_general_p tie_p"),
    ("0.10", "lax", "parallel as collectives"),
    ("0.10", "random", "prng random_gamma_p"),
    ("0.11", "lax.lax", "log2_p? one_minus_square_p?"),
    ("0.12", "lax.lax", "polynomial_p?"),
    ("0.11", "program_order", "program_order_p?"),
    ("0.11", "pjit", "relayout_p?"),
    ("0.12", "state.primitives", "with_memory_space_constraint_p?"),
    # -- sparse arrays, which are imported when the user has imported them
    ("0.10", "jax.experimental.sparse.util", "_csr_to_coo"),
)
LATE = {"_csr_to_coo"}  # in modules that take long to import


class Place(NamedTuple):
    """Where a contact point is since a version of JAX: a module and a name in it."""

    since: tuple[int, ...]
    module: str
    attribute: str

    def find(self) -> Any:
        module = self.module if self.module.startswith("jax.") else f"jax._src.{self.module}"
        try:
            found = import_module(module)
        except ImportError:
            return None
        if hasattr(found, self.attribute):
            return getattr(found, self.attribute)
        try:
            return import_module(f"{module}.{self.attribute}")
        except ImportError:
            return None


def read_table(table=TABLE) -> tuple[dict[str, list[Place]], set[str]]:
    """The places of each contact point, the newest first, and the names that a version may lack."""
    places: dict[str, list[Place]] = {}
    optional = set()
    for since, module, names in table:
        for entry in names.replace(" as ", "=").split():
            attribute, _, renamed = entry.rstrip("?").partition("=")
            name = renamed or attribute
            version = tuple(map(int, since.split(".")))
            places.setdefault(name, []).insert(0, Place(version, module, attribute))
            if entry.endswith("?"):
                optional.add(name)
    return places, optional


def find_all(table=TABLE) -> dict[str, Any]:
    """Every contact point of the table, in the newest place that holds it.

    Raises:
      UnsupportedJaxError: the JAX that is installed has some of them in none of their places.
    """
    places, optional = read_table(table)
    found = {name: _first(options) for name, options in places.items() if name not in LATE}
    missing = [name for name, x in found.items() if x is None and name not in optional]
    if missing:
        where = [f"{places[name][0].module}.{places[name][0].attribute}" for name in missing]
        raise UnsupportedJaxError(jax.__version__, KNOWN, where)
    return found


def _first(options: list[Place]) -> Any:
    """The object found at the newest place that this version should have; in one that was moved again, at any other."""
    ordered = sorted(options, key=lambda place: place.since > jax.__version_info__)
    return next((found for place in ordered if (found := place.find()) is not None), None)


FOUND = find_all()


def contact(name: str) -> Any:
    """The contact point of this name; None if this version of JAX does not have it and need not."""
    return FOUND[name]
