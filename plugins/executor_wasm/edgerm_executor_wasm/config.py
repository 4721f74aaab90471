"""`[executor.wasm]`."""

from __future__ import annotations

import msgspec


class WasmConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[executor.wasm]`.

    Attributes:
        cache_dir: where compiled modules are kept; empty: `executor-wasm/cache` in the agent's data
            directory. Only the agent's user may be able to write there.
        cache_mib: size of all compiled modules on disk; the least recently used go first.
        default_mem_mib: memory limit of a task that asks for no `mem`.
    """

    cache_dir: str = ""
    cache_mib: int = 256
    default_mem_mib: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.cache_mib <= 1 << 20:
            raise ValueError("cache_mib must be 1 to 1048576")
        if not 1 <= self.default_mem_mib <= 4096:
            raise ValueError("default_mem_mib must be 1 to 4096")
