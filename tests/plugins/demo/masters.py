"""A master in the event loop of the test, whose tasks really compute."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import wasmtime

from edgerm_core.ids import BlobId, TaskId
from edgerm_core.messages import Answer, AnyMessage, LogData, LogGet, Message, Query, TaskUpdate
from edgerm_core.tasks import TaskSpec, TaskState
from tests.core.client.conftest import AutoMaster


def update(state: TaskState, result: bytes | None = None) -> TaskUpdate:
    """Return a second word on a task; the master fills in which."""
    return TaskUpdate(TaskId(0), 2, state, result=result)


def call_with_bytes(module: bytes, function: str, data: bytes) -> bytes:
    """Call a function of the bytes ABI in a fresh instance."""
    store = wasmtime.Store()
    exports = wasmtime.Instance(store, wasmtime.Module(store.engine, module), []).exports(store)
    alloc, called, memory = exports["alloc"], exports[function], exports["memory"]
    assert isinstance(alloc, wasmtime.Func)
    assert isinstance(called, wasmtime.Func)
    assert isinstance(memory, wasmtime.Memory)
    address = alloc(store, len(data))
    memory.write(store, data, address)
    packed = called(store, address, len(data))
    start, length = packed >> 32 & 0xFFFFFFFF, packed & 0xFFFFFFFF
    return bytes(memory.read(store, start, start + length))


class ComputingMaster(AutoMaster):
    """Runs WASM functions of bytes with wasmtime, and commands as processes, at once.

    Attributes:
        specs: everything that was submitted.
        answers: rows for queries, by kind.
        asked: queries, as (kind, args).
    """

    def __init__(self) -> None:
        super().__init__(self.run)
        self.specs: list[TaskSpec] = []
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.printed = b""

    def run(self, spec: TaskSpec) -> TaskUpdate:
        """Run a task to its end."""
        self.specs.append(spec)
        implementation = spec.implementations[0]
        if implementation.executor == "wasm":
            assert implementation.blob is not None
            options = implementation.options
            assert options["abi"] == "bytes"
            module = self.blobs[implementation.blob]
            return update(
                TaskState.FINISHED, call_with_bytes(module, options["function"], options["input"])
            )
        with tempfile.TemporaryDirectory() as directory:
            for file in spec.files:
                (Path(directory) / file.path).write_bytes(self.blobs[BlobId(file.blob)])
            result = Path(directory) / "result"
            ended = subprocess.run(
                [str(arg) for arg in implementation.args],
                cwd=directory,
                env={**os.environ, "EDGERM_RESULT_FILE": str(result)},
                stdout=subprocess.PIPE,
                check=True,
                timeout=60,
            )
            self.printed = ended.stdout
            return update(TaskState.FINISHED, result.read_bytes())

    def answer(self, message: AnyMessage) -> list[Message]:
        """Answer logs and queries too."""
        match message:
            case LogGet(request_id, cancel=False):
                half = len(self.printed) // 2
                return [
                    LogData(request_id, 0, self.printed[:half]),
                    LogData(request_id, half, self.printed[half:], end=True),
                ]
            case Query(request_id, kind, args):
                self.asked.append((kind, args))
                rows = self.answers[kind]
                return [Answer(request_id, tuple(rows), len(rows))]
        return super().answer(message)


def encoded(seed: int, resamples: int, *samples: int) -> bytes:
    """Return input for `analyse` with another number of resamples than the demonstration has."""
    return struct.pack(f"<II{len(samples)}h", seed, resamples, *samples)
