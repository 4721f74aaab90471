"""Many runs beside each other: sharing, sleeping, stopping."""

from __future__ import annotations

import os
import threading
import time
from random import Random
from typing import TYPE_CHECKING

import anyio
import pytest
from edgerm_executor_wasm import workers as workers_file
from wasmtime._wasi import CUSTOM_OUTPUTS

from edgerm_core.tasks import Reason
from edgerm_core.testing.contracts.executor import until

if TYPE_CHECKING:
    from edgerm_executor_wasm.run import Run

    from tests.plugins.executor_wasm.conftest import Rig

pytestmark = pytest.mark.anyio

AT_ONCE_S = 30.0
"""What must not wait for a grace period is over within this, on a busy machine too."""

GRACE_S = 60.0


def wasm_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("wasm-")}


async def test_endless_loop_is_stopped_while_a_neighbour_and_the_event_loop_go_on(rig: Rig) -> None:
    endless = [await rig.start(rig.launch("spins")) for _ in range(4)]
    lags: list[float] = []
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while True:
                began = time.perf_counter()
                await anyio.sleep(0.005)
                lags.append(time.perf_counter() - began - 0.005)

        group.start_soon(watch)
        for _ in range(20):
            assert (await rig.run(rig.launch("numbers", "add", 1, 2))).result == b"3"
        assert (await rig.run(rig.launch("spins", "rounds", 10_000_000))).ok
        for handle in endless:
            with anyio.fail_after(AT_ONCE_S):
                await rig.executor.stop(handle, GRACE_S)
        group.cancel_scope.cancel()
    # Not the worst one: that may be the machine's own.
    assert sorted(lags)[len(lags) // 2] < 0.5
    for handle in endless:
        ended = await rig.wait(handle)
        assert (ended.ok, ended.reason) == (False, Reason.KILLED_BY_REQUEST)


async def test_start_function_that_never_ends_is_stopped_too(rig: Rig) -> None:
    text = '(module (func $boot (loop $again (br $again))) (start $boot) (func (export "_start")))'
    handle = await rig.start(rig.launch(text))
    await anyio.sleep(0.05)
    with anyio.fail_after(AT_ONCE_S):
        await rig.executor.stop(handle, GRACE_S)
    assert (await rig.wait(handle)).reason == Reason.KILLED_BY_REQUEST


async def test_processor_is_shared_as_granted(rig: Rig) -> None:
    """Ten times the share, on a machine that others use too: waits until it shows.

    Where the thread that ends slices has to wait, one is longer, and the pause after it too.
    """
    began = time.monotonic()
    small = await rig.start(rig.launch("spins", resources="cpus:0.02"))
    large = await rig.start(rig.launch("spins", resources="cpus:0.2"))
    with anyio.fail_after(90):
        shows = False
        while not shows:
            await anyio.sleep(0.2)
            used = [(await rig.executor.stats(handle)).cpu_s or 0.0 for handle in (small, large)]
            passed = time.monotonic() - began
            # No more than its share and a burst.
            within = used[0] <= 0.02 * passed + 0.1 and used[1] <= 0.2 * passed + 0.1
            shows = within and passed > 1.0 and used[1] > 3 * used[0] > 0.0


async def test_three_hundred_sleep_at_once_without_threads_and_are_stopped_at_once(rig: Rig) -> None:
    before = wasm_threads()
    handles = [await rig.start(rig.launch("sleeps")) for _ in range(300)]
    assert (await rig.run(rig.launch("sleeps", "sleep_ms", 20))).ok
    # The ticker's, that of short runs, and those of runs that used up a slice before they slept.
    processors = len(os.sched_getaffinity(0))
    assert len(wasm_threads() - before) <= 2 + processors
    for handle in handles:
        assert (await rig.executor.stats(handle)).mem_bytes == 65_536, "each has been running"
    with anyio.fail_after(AT_ONCE_S):
        async with anyio.create_task_group() as group:
            for handle in handles:
                group.start_soon(rig.executor.stop, handle, GRACE_S)
    results = [await rig.wait(handle) for handle in handles]
    assert {result.reason for result in results} == {Reason.KILLED_BY_REQUEST}


async def test_sleepers_wake_up_in_the_order_of_their_alarms(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await rig.run(rig.launch("sleeps", "sleep_ms", 1))).ok
    runtime = rig.executor._runtime
    assert runtime is not None
    report = runtime.workers._on_end
    ended: list[Run] = []

    def note(runs: list[Run]) -> None:
        ended.extend(runs)
        report(runs)

    monkeypatch.setattr(runtime.workers, "_on_end", note)
    handles = [await rig.start(rig.launch("sleeps", "sleep_ms", ms)) for ms in (400, 200, 600, 1)]
    for handle in handles:
        assert (await rig.wait(handle)).ok
    assert len(ended) == 4
    # When an alarm is, its guest says: a busy machine may begin one late.
    assert ended == sorted(ended, key=lambda run: run.wake_at)


async def test_stopped_sleepers_are_not_kept_until_their_alarms(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_file, "STALE_PARKED", 4)
    for _ in range(40):
        handle = await rig.start(rig.launch("sleeps"))
        with anyio.fail_after(AT_ONCE_S):
            while True:
                if (await rig.executor.stats(handle)).mem_bytes:
                    break
                await anyio.sleep(0.001)
            await rig.executor.destroy(handle)
    runtime = rig.executor._runtime
    assert runtime is not None
    assert len(runtime.workers._parked) <= 2 * 5 + 1


async def test_long_runs_outnumber_the_threads_and_all_end(rig: Rig) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(rig.run, rig.launch("spins", "rounds", 30_000_000))


async def test_run_that_waits_for_its_share_is_stopped_at_once(rig: Rig) -> None:
    handle = await rig.start(rig.launch("spins", resources="cpus:0.001"))
    await anyio.sleep(0.3)
    with anyio.fail_after(AT_ONCE_S):
        await rig.executor.stop(handle, GRACE_S)


async def test_runs_stopped_at_any_moment_leave_nothing_behind(rig: Rig) -> None:
    random = Random(20)
    sources = ["sleeps", "spins", "echo", "arguments"]
    outputs_before = len(CUSTOM_OUTPUTS.handles)

    async def one(source: str, delay_s: float) -> None:
        handle = await rig.start(rig.launch(source, resources=f"cpus:{random.choice([0.05, 2])}"))
        await anyio.sleep(delay_s)
        await rig.executor.stop(handle, GRACE_S)
        await rig.wait(handle)
        await rig.executor.destroy(handle)

    with anyio.fail_after(GRACE_S):
        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(one, random.choice(sources), random.random() * 0.2)
    assert len(CUSTOM_OUTPUTS.handles) == outputs_before
    assert not rig.executor._entries
    assert not rig.executor._by_run


async def test_close_ends_runs_and_threads(rig: Rig) -> None:
    before = wasm_threads()
    waiting = [await rig.start(rig.launch(name)) for name in ("sleeps", "spins", "spins")]
    await anyio.sleep(0.05)
    assert wasm_threads() - before
    with anyio.fail_after(AT_ONCE_S):
        await rig.executor.close()
    # It does not wait for ever for a thread that gets no processor.
    await until(lambda: not wasm_threads() - before, "threads go on")
    assert {(await rig.wait(handle)).reason for handle in waiting} == {Reason.KILLED_BY_REQUEST}


async def test_epochs_stand_still_while_nothing_runs(rig: Rig) -> None:
    await rig.start(rig.launch("sleeps"))
    assert (await rig.run(rig.launch("numbers", "nothing"))).ok
    runtime = rig.executor._runtime
    assert runtime is not None
    await until(lambda: runtime.workers._ticker._parked, "the ticker goes on")
