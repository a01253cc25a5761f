"""The processes of one run (``jax.distributed``), and the store of texts that its coordinator keeps for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
from jax._src import distributed


@dataclass(frozen=True)
class Store:
    """Texts by key, each written once. Reading and writing take a message to the coordinator, no other process."""

    client: Any
    is_first: bool  # whether this is process 0

    def get(self, key: str, seconds: float = 0.0) -> str | None:
        """The text, waited for so long; None if nobody has written it."""
        try:
            if seconds:
                return self.client.blocking_key_value_get(key, int(1000 * seconds))
            return self.client.key_value_try_get(key)
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" in str(error) or "DEADLINE_EXCEEDED" in str(error):
                return None
            raise

    def offer(self, key: str, text: str) -> None:
        """Write the text, unless another one is there already."""
        try:
            self.client.key_value_set(key, text, allow_overwrite=False)
        except jax.errors.JaxRuntimeError as error:
            if "ALREADY_EXISTS" not in str(error):
                raise


def store() -> Store | None:
    """The store of this run; None if it has one process only."""
    state = distributed.global_state
    if state.client is None or state.num_processes == 1:
        return None
    return Store(state.client, state.process_id == 0)
