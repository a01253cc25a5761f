"""Primitives that have no public name.

The rule table needs them by name; those that the installed version lacks are None.
"""

from __future__ import annotations

from jax._src import ad_util, core
from jax._src.ad_checkpoint import name_p as name_p
from jax._src.ad_checkpoint import remat_p as remat_p
from jax._src.ad_util import stop_gradient_p as stop_gradient_p
from jax._src.callback import io_callback_p as io_callback_p
from jax._src.callback import pure_callback_p as pure_callback_p
from jax._src.compute_on import compute_on_p as compute_on_p
from jax._src.core import empty_ref_p as empty_ref_p
from jax._src.core import free_ref_p as free_ref_p
from jax._src.core import freeze_p as freeze_p
from jax._src.core import pvary_p as pvary_p
from jax._src.core import reduced_vary_cast_p as reduced_vary_cast_p
from jax._src.custom_batching import custom_vmap_p as custom_vmap_p
from jax._src.custom_derivatives import custom_jvp_call_p as custom_jvp_call_p
from jax._src.custom_derivatives import custom_vjp_call_p as custom_vjp_call_p
from jax._src.custom_derivatives import linear_call_p as linear_call_p
from jax._src.custom_derivatives import remat_opt_p as remat_opt_p
from jax._src.debugging import debug_callback_p as debug_callback_p
from jax._src.debugging import debug_print_p as debug_print_p
from jax._src.debugging import inspect_sharding_p as inspect_sharding_p
from jax._src.ffi import ffi_call_p as ffi_call_p
from jax._src.lax import parallel
from jax._src.lax.control_flow.conditionals import cond_p as cond_p
from jax._src.lax.control_flow.loops import scan_p as scan_p
from jax._src.lax.control_flow.loops import while_p as while_p
from jax._src.lax.lax import composite_p as composite_p
from jax._src.lax.lax import dce_sink_p as dce_sink_p
from jax._src.lax.lax import ragged_dot_general_p as ragged_dot_general_p
from jax._src.lax.lax import tie_p as tie_p
from jax._src.lax.other import logaddexp as logaddexp
from jax._src.pjit import jit_p as jit_p
from jax._src.pjit import layout_constraint_p as layout_constraint_p
from jax._src.pjit import reshard_p as reshard_p
from jax._src.pjit import sharding_constraint_p as sharding_constraint_p
from jax._src.random import prng
from jax._src.random import random_gamma_p as random_gamma_p
from jax._src.state.discharge import run_state_p as run_state_p
from jax._src.state.primitives import addupdate_p as addupdate_p
from jax._src.state.primitives import get_p as get_p
from jax._src.state.primitives import swap_p as swap_p

from admodes.program.jax_compat.contacts import contact

collectives = parallel  # its primitives are for rules/parallel.py
add_any_p = ad_util.add_jaxvals_p
new_ref_p = core.ref_p
xla_metadata_call_p = contact("xla_metadata_call_p")

eval_jaxpr_p = contact("eval_jaxpr_p")

# None where the version of JAX does not have them
stage_p = contact("stage_p")
log2_p = contact("log2_p")
one_minus_square_p = contact("one_minus_square_p")
polynomial_p = contact("polynomial_p")
program_order_p = contact("program_order_p")
relayout_p = contact("relayout_p")
with_memory_space_constraint_p = contact("with_memory_space_constraint_p")

random_bits_primitives = (  # keys and bits: nothing that could be differentiated
    prng.random_seed_p,
    prng.random_split_p,
    prng.random_fold_in_p,
    prng.random_bits_p,
    prng.random_wrap_p,
    prng.random_unwrap_p,
)
