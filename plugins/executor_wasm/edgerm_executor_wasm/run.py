"""One run of a module: its instance, and what is to be called, a turn at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence

import wasmtime

from edgerm_core.limits import MAX_RESULT_BYTES
from edgerm_core.tasks import ExitResult, Reason
from edgerm_executor_wasm import native, outcome
from edgerm_executor_wasm.call import Call, Number, format_values
from edgerm_executor_wasm.engine import MAX_TABLE_ELEMENTS, MAX_TABLES, Host
from edgerm_executor_wasm.module import Module
from edgerm_executor_wasm.output import Output
from edgerm_executor_wasm.share import CpuShare
from edgerm_executor_wasm.ticker import SLICE_TICKS

log = logging.getLogger(__name__)

Program = Generator[native.Future, list[Number], bytes | None]


class Run:
    """A run, driven by `turn` from worker threads, one at a time.

    Parameters:
        host: of the process.
        module: what to run.
        call: what to call, checked.
        mem_limit_bytes: limit of its memory.
        cpu_share: of one processor; None: no limit.
        argv, env: a command's arguments, the first being its name, and environment.
        preopens: directories it may use.
        output: where its output goes.

    Attributes:
        result: how it ended; None while it goes on.
        stopping: it is to be ended at its next turn.
        long: used up its last slice, so that other threads go on with it.
        wake_at: by `time.monotonic`, when it wants its next turn.
        park_until: by `time.monotonic`, when it gets its next turn.
        parked: waits for `park_until`.
        clock_origin: by `time.monotonic`, when the guest's own monotonic clock was zero.
        cpu_s: processor time used so far.
        mem_bytes: its memory when it last paused.
    """

    def __init__(
        self,
        host: Host,
        module: Module,
        call: Call,
        mem_limit_bytes: int,
        cpu_share: float | None,
        argv: Sequence[str],
        env: dict[str, str],
        preopens: Sequence[native.Preopen],
        output: Output,
    ) -> None:
        self._host = host
        self._module = module
        self._call = call
        self._mem_limit_bytes = mem_limit_bytes
        self._argv = argv
        self._env = env
        self._preopens = preopens
        self._output = output
        self._store: native.Store | None = None
        self._future: native.Future | None = None
        self._values: list[Number] | None = None
        self._program: Program = self._run()
        self.share = CpuShare(cpu_share, time.monotonic())
        self.result: ExitResult | None = None
        self.stopping = False
        # File access blocks its thread, so it does not begin on the one that serves short runs.
        self.uses_files = bool(preopens)
        self.long = self.uses_files
        self.wake_at = 0.0
        self.park_until = 0.0
        self.parked = False
        self.clock_origin = 0.0
        self.cpu_s = 0.0
        self.mem_bytes = 0

    def turn(self) -> bool:
        """Go on until the guest pauses (False) or has ended and all is released (True)."""
        self._host.current.run = self
        try:
            while True:
                if self._future is None:
                    self._future = self._program.send(self._values)  # type: ignore[arg-type]
                if not native.poll(self._future.pointer):
                    self._note_memory()
                    return False
                future, self._future = self._future, None
                future.delete_ended()
                self._values = future.values()
        except StopIteration as end:
            result = self._with_stdout(outcome.returned(end.value))
        except outcome.ResultError as error:
            result = outcome.failed_result(str(error))
        except wasmtime.ExitTrap as error:
            result = self._with_stdout(outcome.exited(error.code, None))
        except wasmtime.Trap as error:
            self._note_memory()
            result = outcome.trapped(error, self.mem_bytes, self._mem_limit_bytes)
        except wasmtime.WasmtimeError as error:
            result = outcome.refused(error, self._mem_limit_bytes)
        except Exception as error:
            log.exception("run of a module failed")
            message = f"The executor failed: {type(error).__name__}: {error}."
            result = ExitResult(ok=False, reason=Reason.LAUNCH_FAILED, message=message)
        self._release(result)
        return True

    def abort(self) -> None:
        """End the guest where it is and release all. By a worker, between turns."""
        self._host.current.run = self
        self._release(outcome.STOPPED)

    def _run(self) -> Program:
        call = self._call
        wasi = None
        if self._module.uses_wasi:
            wasi = native.make_wasi(
                self._argv,
                self._env,
                b"" if call.takes_bytes else call.input,
                self._output.write_stdout,
                self._output.write_stderr,
                self._preopens,
            )
            self.clock_origin = time.monotonic()
        self._store = native.Store(
            self._host.engine, self._mem_limit_bytes, MAX_TABLE_ELEMENTS, MAX_TABLES, SLICE_TICKS, wasi
        )
        store = self._store
        yield store.instantiate(self._module.prepared)
        if self._module.has_memory:
            store.find_memory()
        if call.initialize:
            yield store.call("_initialize", (), (), 0)
        args = call.args
        if call.takes_bytes:
            args = yield from self._place_input(store, call.input)
        signature = call.signature
        values = yield store.call(call.function, signature.params, args, len(signature.results))
        if not call.returns_value:
            return None
        return self._read_bytes(store, int(values[0])) if call.takes_bytes else format_values(values)

    def _place_input(
        self, store: native.Store, data: bytes
    ) -> Generator[native.Future, list[Number], tuple[Number, ...]]:
        [address] = yield store.call("alloc", ("i32",), (len(data),), 1)
        start = int(address) & 0xFFFFFFFF
        memory = store.memory()
        if start + len(data) > len(memory):
            raise outcome.ResultError(f"`alloc` returned {start}, and {len(data)} bytes do not fit there.")
        memory[start : start + len(data)] = data
        return int(address), len(data)

    def _read_bytes(self, store: native.Store, packed: int) -> bytes:
        start, length = packed >> 32 & 0xFFFFFFFF, packed & 0xFFFFFFFF
        if length > MAX_RESULT_BYTES:
            raise outcome.ResultError(
                f"The result of {length} bytes exceeds the limit of {MAX_RESULT_BYTES}."
            )
        memory = store.memory()
        if start + length > len(memory):
            raise outcome.ResultError(f"The result at {start}, {length} bytes, is outside the memory.")
        return bytes(memory[start : start + length])

    def _with_stdout(self, result: ExitResult) -> ExitResult:
        if self._output.captured is None or not result.ok:
            return result
        return outcome.returned(bytes(self._output.captured))

    def _note_memory(self) -> None:
        if self._store is not None:
            self.mem_bytes = self._store.mem_bytes() or self.mem_bytes

    def _release(self, result: ExitResult) -> None:
        """Free all that belongs to the guest, then say how it ended."""
        self._note_memory()
        if self._future is not None:
            self._future.delete_paused()
            self._future = None
        self._program.close()
        if self._store is not None:
            self._store.close()
            self._store = None
        self._output.close()
        if self.result is None:
            self.result = result
