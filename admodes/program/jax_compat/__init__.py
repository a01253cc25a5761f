"""The only folder that touches JAX's internals, so that an upgrade of JAX is one folder's work.

``tests/program/test_jax_contracts.py`` checks each assumption made here and fails by name when a new JAX breaks it.
Verified with jax 0.10.2; older releases lack primitives that the table names.
"""

from admodes.program.jax_compat.contacts import *  # noqa: F403
from admodes.program.jax_compat.control_flow import *  # noqa: F403
from admodes.program.jax_compat.functions import *  # noqa: F403
from admodes.program.jax_compat.hijax import *  # noqa: F403
from admodes.program.jax_compat.identities import *  # noqa: F403
from admodes.program.jax_compat.jaxprs import *  # noqa: F403
from admodes.program.jax_compat.meshes import *  # noqa: F403
from admodes.program.jax_compat.primitives import *  # noqa: F403
from admodes.program.jax_compat.processes import *  # noqa: F403
from admodes.program.jax_compat.references import *  # noqa: F403
from admodes.program.jax_compat.registered import *  # noqa: F403
from admodes.program.jax_compat.shard_map import *  # noqa: F403
from admodes.program.jax_compat.sparse_arrays import *  # noqa: F403
from admodes.program.jax_compat.traces import *  # noqa: F403
from admodes.program.jax_compat.values import *  # noqa: F403
