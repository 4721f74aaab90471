"""`poll_oneoff` of WASI preview 1, by which guests sleep.

wasmtime's own blocks the thread that runs the guest, and no epoch can interrupt it. This one pauses
the guest: it then holds no thread, and can be stopped at once. Files and streams are always ready.
https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md#poll_oneoff
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import wasmtime

from edgerm_executor_wasm import native

log = logging.getLogger(__name__)

MAX_SUBSCRIPTIONS: Final = 1024
"""In one call; bounds the work that one call can cause in the agent."""

MAX_SLEEP_S: Final = 10 * 365 * 86_400.0
"""A longer sleep is cut to this."""

_SUBSCRIPTION_BYTES: Final = 48
_EVENT_BYTES: Final = 32
_SUCCESS, _FAULT, _INVALID, _IO = 0, 21, 28, 29
_CLOCK, _FD_READ, _FD_WRITE = 0, 1, 2
_REALTIME, _MONOTONIC = 0, 1
_ABSOLUTE: Final = 1

_EVENT: Final = struct.Struct("<QHB5xQHxxxxxx")
_HEADER: Final = struct.Struct("<QB7x")
_CLOCK_BODY: Final = struct.Struct("<I4xQQH")


class Sleeper(Protocol):
    """What a sleeping guest belongs to.

    Attributes:
        wake_at: by `time.monotonic`, when it wants to go on; 0: at once.
        clock_origin: by `time.monotonic`, when the guest's own monotonic clock was zero.
    """

    wake_at: float
    clock_origin: float


def plan_sleep(
    memory: memoryview, source: int, target: int, count: int, monotonic: float, real: float, origin: float
) -> tuple[int, int, float]:
    """Read the subscriptions, write the events of those that will be ready first.

    Parameters:
        memory: the guest's.
        source, target: where the subscriptions are and the events go, `count` of each.
        monotonic, real: now, in seconds, of both clocks.
        origin: `monotonic` when the guest's own monotonic clock was zero.

    Returns:
        WASI error number, number of events, and for how long to sleep before they are true.
    """
    if not 1 <= count <= MAX_SUBSCRIPTIONS:
        return _INVALID, 0, 0.0
    if source + count * _SUBSCRIPTION_BYTES > len(memory) or target + count * _EVENT_BYTES > len(memory):
        return _FAULT, 0, 0.0
    ready: list[tuple[float, int, int, int]] = []  # Delay, user data, error, type.
    for index in range(count):
        at = source + index * _SUBSCRIPTION_BYTES
        user_data, kind = _HEADER.unpack_from(memory, at)
        if kind == _CLOCK:
            clock, timeout_ns, _, flags = _CLOCK_BODY.unpack_from(memory, at + _HEADER.size)
            delay = timeout_ns / 1e9
            if clock not in (_REALTIME, _MONOTONIC):
                ready.append((0.0, user_data, _INVALID, kind))
                continue
            if flags & _ABSOLUTE:
                delay -= real if clock == _REALTIME else monotonic - origin
            ready.append((min(max(delay, 0.0), MAX_SLEEP_S), user_data, _SUCCESS, kind))
        elif kind in (_FD_READ, _FD_WRITE):
            ready.append((0.0, user_data, _SUCCESS, kind))
        else:
            return _INVALID, 0, 0.0
    sleep_s = min(delay for delay, _, _, _ in ready)
    first = [event for event in ready if event[0] <= sleep_s]
    for index, (_, user_data, error, kind) in enumerate(first):
        size = 0 if kind == _CLOCK else 1
        _EVENT.pack_into(memory, target + index * _EVENT_BYTES, user_data, error, kind, size, 0)
    return _SUCCESS, len(first), sleep_s


def define_clock(linker: wasmtime.Linker, current: Callable[[], Sleeper]) -> list[Any]:
    """Put this `poll_oneoff` in place of wasmtime's.

    Parameters:
        linker: allows shadowing.
        current: returns whom the calling thread is running.

    Returns:
        What must be kept as long as the linker.
    """

    def poll_oneoff(
        _env: Any, caller: Any, args: Any, _nargs: int, results: Any, _nresults: int, _trap: Any, then: Any
    ) -> None:
        # An exception cannot cross the guest's stack: it becomes the error number for input/output.
        error = _IO
        sleeper = current()
        sleeper.wake_at = 0.0
        try:
            error = _poll_oneoff(sleeper, caller, args)
        except Exception:
            log.exception("poll_oneoff failed")
        results[0].kind = 0
        results[0].of.i32 = error
        then[0].callback = awake_callback
        then[0].env = None
        then[0].finalizer = native.NO_FINALIZER

    def _poll_oneoff(sleeper: Sleeper, caller: Any, args: Any) -> int:
        memory = native.caller_memory(caller)
        if memory is None:
            return _FAULT
        source, target, count, count_at = (args[i].of.i32 & 0xFFFFFFFF for i in range(4))
        if count_at + 4 > len(memory):
            return _FAULT
        now = time.monotonic()
        error, events, sleep_s = plan_sleep(
            memory, source, target, count, now, time.time(), sleeper.clock_origin
        )
        struct.pack_into("<I", memory, count_at, events)
        if sleep_s > 0:
            sleeper.wake_at = now + sleep_s
        return error

    def awake(_env: Any) -> bool:
        return current().wake_at <= time.monotonic()

    awake_callback = native.continuation(awake)
    function = native.async_host_function(poll_oneoff)
    i32 = wasmtime.ValType.i32
    signature = wasmtime.FuncType([i32(), i32(), i32(), i32()], [i32()])
    native.define_async(linker, "wasi_snapshot_preview1", "poll_oneoff", signature, function)
    return [awake_callback, function]
