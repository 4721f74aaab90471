"""The modules in memory: each is loaded once, however many tasks ask for it at the same time."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from edgerm_core.errors import EdgermError, ExecutorError
from edgerm_core.ids import BlobId
from edgerm_core.tasks import Reason
from edgerm_executor_wasm.compile_cache import CompileCache
from edgerm_executor_wasm.engine import Host
from edgerm_executor_wasm.module import Module, compile_module

MAX_MODULES: Final = 64
"""Kept in memory for the next task; those in use are kept beyond it by who uses them."""

MAX_LOADS: Final = 1
"""Loaded at a time. Compiling takes a processor and much memory, and tasks run beside it."""


class _Loading:
    def __init__(self) -> None:
        self.over = anyio.Event()
        self.error: EdgermError | None = None


class Modules:
    """Loads modules from their blobs.

    Attributes:
        compiled: how many have been compiled, that is, came from no cache.
    """

    def __init__(self, host: Host, cache: CompileCache) -> None:
        self._host = host
        self._cache = cache
        self._ready: OrderedDict[BlobId, Module] = OrderedDict()
        self._loading: dict[BlobId, _Loading] = {}
        self._limiter = anyio.CapacityLimiter(MAX_LOADS)
        self.compiled = 0

    def get(self, blob: BlobId) -> Module | None:
        """Return the module if it is in memory."""
        module = self._ready.get(blob)
        if module is not None:
            self._ready.move_to_end(blob)
        return module

    async def load(self, blob: BlobId, path: Path) -> Module:
        """Return the module, from memory, from disk or compiled. Cancel-safe.

        Raises:
            ExecutorError: if it is no module, or imports what is not there.
        """
        while True:
            module = self.get(blob)
            if module is not None:
                return module
            loading = self._loading.get(blob)
            if loading is None:
                return await self._load(blob, path)
            await loading.over.wait()
            if loading.error is not None:
                raise loading.error

    async def _load(self, blob: BlobId, path: Path) -> Module:
        loading = self._loading[blob] = _Loading()
        try:
            module = await anyio.to_thread.run_sync(self._load_in_thread, blob, path, limiter=self._limiter)
        except EdgermError as error:
            loading.error = error
            raise
        finally:
            # If this call was cancelled, one of those who waited for it tries again.
            del self._loading[blob]
            loading.over.set()
        self._ready[blob] = module
        while len(self._ready) > MAX_MODULES:
            self._ready.popitem(last=False)
        return module

    def _load_in_thread(self, blob: BlobId, path: Path) -> Module:
        compiled = self._cache.load(blob)
        if compiled is not None:
            return Module(self._host, compiled)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ExecutorError(
                f"the module cannot be read: {error}", reason=Reason.BLOB_UNAVAILABLE, recoverable=True
            ) from error
        compiled = compile_module(self._host.engine, data)
        self.compiled += 1
        module = Module(self._host, compiled)
        self._cache.save(blob, compiled)
        return module
