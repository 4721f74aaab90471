"""A WASM function over many inputs, on many agents, in the manner of `concurrent.futures`.

with MapExecutor(module="square.wat", function="square") as executor:
    print(list(executor.map(range(100))))
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Literal, Self, TypedDict, Unpack

import anyio
import anyio.lowlevel
import msgspec
from anyio.from_thread import start_blocking_portal

from edgerm_core.client.framework import connect_framework
from edgerm_core.client.link import CLOSE_TIMEOUT_S
from edgerm_core.client.session import CONNECT_TIMEOUT_S, ConnectionCallback
from edgerm_core.client.specs import Content, Draft, TaskOptions, task, wasm
from edgerm_core.client.tasks import Task
from edgerm_core.errors import ConnectionClosed, EdgermError, SpecError
from edgerm_core.plugins import Plugins

Number = int | float
Output = Any
"""`numbers`: an int, a float, a list of several, or None; `bytes`: bytes."""

MAX_IN_FLIGHT: Final = 256
"""Tasks of one executor at the same time, unless told otherwise: enough to keep a hundred small
agents busy over a slow link, few enough that cancelling is quick."""


class ConnectOptions(TypedDict, total=False):
    """What `MapExecutor` passes on to `connect_framework`."""

    id: str
    name: str
    weight: float
    role: str
    insecure: bool
    connect_timeout_s: float
    on_connection: ConnectionCallback
    plugins: Plugins


class MapExecutor:
    """Runs one exported function of a WASM module once per input, each as a task of its own.

    Use it from any thread. Leaving the `with` block waits for what was submitted, like
    `concurrent.futures.Executor`; if the block raises, what has not ended is killed.

    Parameters:
        url: the master, as for `connect_framework`.
        module: bytes or path of the module; `.wat` is compiled if wasmtime is installed.
        function: the exported function.
        abi: `numbers`: inputs and outputs are numbers; `bytes`: one input and the output are bytes
            (the module exports `memory` and `alloc(i32) -> i32`, and the function takes pointer and
            length and returns `pointer << 32 | length`).
        max_in_flight: tasks at the same time; `submit` waits for a place.
        task_options: for every task, such as `{"cpus": 0.5, "constraints": ["zone==a"]}`.
        connect_options: see `connect_framework`.

    Raises:
        SpecError, BlobError: if the module or the options are wrong.
        ConfigError, PluginError, TransportError, RefusedError: as `connect_framework`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        module: Content,
        function: str,
        abi: Literal["numbers", "bytes"] = "numbers",
        max_in_flight: int = MAX_IN_FLIGHT,
        task_options: TaskOptions | None = None,
        **connect_options: Unpack[ConnectOptions],
    ) -> None:
        if max_in_flight < 1:
            raise SpecError(f"max_in_flight must be 1 or more, not {max_in_flight}")
        self._recipe = wasm(module, function=function)
        self._function = function
        self._abi = abi
        self._task_options: TaskOptions = {"cpus": 0.1, "mem": "32MiB", **(task_options or {})}
        self._max_in_flight = max_in_flight
        self._places = threading.BoundedSemaphore(max_in_flight)
        self._futures: set[Future[Output]] = set()
        self._submitting: set[anyio.CancelScope] = set()
        self._lock = threading.Lock()
        self._closed = False
        connect_options.setdefault("name", "map")
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            connecting = connect_framework(url, **connect_options)
            self._framework = stack.enter_context(self._portal.wrap_async_context_manager(connecting))
            self._stack = stack.pop_all()
        self._loop_thread = self._portal.call(threading.get_ident)

    def submit(self, *inputs: Number | bytes) -> Future[Output]:
        """Run the function on these inputs; return a future of its output.

        Waits while `max_in_flight` tasks have not ended. Cancelling the future kills the task. Its
        `result` raises TaskFailed if the task ended otherwise than FINISHED, or the session's error.

        Raises:
            SpecError: if the inputs do not suit the abi.
            RuntimeError: after `shutdown`, or from a future's callback, which must not wait.
        """
        if threading.get_ident() == self._loop_thread:
            raise RuntimeError("submit() may wait, so it must not be called from a future's callback")
        draft = self._draft(inputs)
        self._places.acquire()
        try:
            with self._lock:
                if self._closed:
                    raise RuntimeError("this executor was shut down")
                future = self._portal.start_task_soon(self._run, draft)
                self._futures.add(future)
        except BaseException:
            self._places.release()
            raise
        future.add_done_callback(self._futures.discard)
        return future

    def map(self, *columns: Iterable[Number | bytes], timeout: float | None = None) -> Iterator[Output]:
        """Yield the function's outputs in the order of the inputs, like the built-in `map`.

        Reads the inputs as places become free, so they may be endless. Leaving early cancels what
        was submitted.

        Parameters:
            timeout: seconds to wait for each output; None: no limit.

        Raises:
            TaskFailed: at the place of the input whose task did not finish.
            TimeoutError: if an output does not come in time.
        """
        waiting: deque[Future[Output]] = deque()
        try:
            for inputs in zip(*columns, strict=False):
                waiting.append(self.submit(*inputs))
                while waiting and (waiting[0].done() or len(waiting) >= self._max_in_flight):
                    yield waiting.popleft().result(timeout)
            while waiting:
                yield waiting.popleft().result(timeout)
        finally:
            for future in waiting:
                future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more inputs, wait for all tasks to end, and remove the framework. Idempotent.

        Parameters:
            wait: kept for likeness; with False the tasks are killed, since nobody would look after them.
            cancel_futures: kill what has not ended.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if cancel_futures or not wait:
            for future in list(self._futures):
                future.cancel()
            self._portal.call(self._hurry)
        # Every task gives its place back when it has ended or its kill has been sent.
        for _ in range(self._max_in_flight):
            self._places.acquire()
        try:
            with self._stack:
                self._portal.call(self._leave)
        finally:
            # Whoever waits for a place in `submit` must learn that there will be none.
            self._places.release(self._max_in_flight)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown(cancel_futures=error is not None)

    def _draft(self, inputs: tuple[Number | bytes, ...]) -> Draft:
        options: dict[str, Any] = {"function": self._function}
        args: tuple[Number, ...] = ()
        if self._abi == "bytes":
            if len(inputs) != 1 or not isinstance(inputs[0], bytes):
                raise SpecError(f"{self._function} takes one bytes value, not {inputs!r:.80}")
            options |= {"abi": "bytes", "input": inputs[0]}
        else:
            args = tuple(value for value in inputs if not isinstance(value, bytes))
            if len(args) != len(inputs):
                raise SpecError(
                    f"{self._function} takes numbers, not {inputs!r:.80}; for bytes: abi='bytes'"
                )
        made = msgspec.structs.replace(self._recipe.implementation, args=args, options=options)
        return task(dataclasses.replace(self._recipe, implementation=made), **self._task_options)

    async def _run(self, draft: Draft) -> Output:
        running = None
        try:
            running = await self._submit(draft)
            data = await running.result()
            if self._abi == "bytes":
                return data
            return json.loads(data) if data else None
        except anyio.get_cancelled_exc_class():
            if running is not None:
                with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                    await running.kill()
            raise
        finally:
            self._places.release()

    async def _submit(self, draft: Draft) -> Task:
        """Submit, also if the future is cancelled meanwhile: only a task that we know can be killed."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        with anyio.CancelScope(shield=True) as scope:
            self._submitting.add(scope)
            try:
                return await self._framework.submit(draft)
            finally:
                self._submitting.discard(scope)
        raise ConnectionClosed("this executor was shut down before the master took the task")

    async def _hurry(self) -> None:
        """Give up soon on what is being submitted."""
        for scope in self._submitting:
            scope.deadline = anyio.current_time() + CLOSE_TIMEOUT_S

    async def _leave(self) -> None:
        try:
            with anyio.move_on_after(CONNECT_TIMEOUT_S):
                await self._framework.teardown()
        except EdgermError:
            pass  # The session ended before: nothing is left to remove over it.
