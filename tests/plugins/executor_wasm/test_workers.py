"""Many runs beside each other: sharing, sleeping, stopping."""

from __future__ import annotations

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
    from tests.plugins.executor_wasm.conftest import Rig

pytestmark = pytest.mark.anyio


def wasm_threads() -> int:
    return sum(thread.name.startswith("wasm-") for thread in threading.enumerate())


async def test_endless_loop_is_stopped_while_a_neighbour_and_the_event_loop_go_on(rig: Rig) -> None:
    endless = [await rig.start(rig.launch("spins")) for _ in range(4)]
    worst_lag = 0.0
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            nonlocal worst_lag
            while True:
                began = time.perf_counter()
                await anyio.sleep(0.005)
                worst_lag = max(worst_lag, time.perf_counter() - began - 0.005)

        group.start_soon(watch)
        for _ in range(20):
            assert (await rig.run(rig.launch("numbers", "add", 1, 2))).result == b"3"
        assert (await rig.run(rig.launch("spins", "rounds", 10_000_000))).ok
        began = time.perf_counter()
        for handle in endless:
            with anyio.fail_after(5):
                await rig.executor.stop(handle, 60.0)
        stopped_s = time.perf_counter() - began
        group.cancel_scope.cancel()
    assert worst_lag < 1.0
    assert stopped_s < 5.0
    for handle in endless:
        ended = await rig.wait(handle)
        assert (ended.ok, ended.reason) == (False, Reason.KILLED_BY_REQUEST)


async def test_start_function_that_never_ends_is_stopped_too(rig: Rig) -> None:
    text = '(module (func $boot (loop $again (br $again))) (start $boot) (func (export "_start")))'
    handle = await rig.start(rig.launch(text))
    await anyio.sleep(0.05)
    with anyio.fail_after(5):
        await rig.executor.stop(handle, 60.0)
    assert (await rig.wait(handle)).reason == Reason.KILLED_BY_REQUEST


async def test_processor_is_shared_as_granted(rig: Rig) -> None:
    """Ten times the share, on a machine that others use too: waits until it shows."""
    small = await rig.start(rig.launch("spins", resources="cpus:0.02"))
    large = await rig.start(rig.launch("spins", resources="cpus:0.2"))
    began = time.monotonic()
    with anyio.fail_after(60):
        used = [0.0, 0.0]
        while used[1] <= 3 * used[0] or used[0] == 0.0:
            await anyio.sleep(0.2)
            used = [(await rig.executor.stats(handle)).cpu_s or 0.0 for handle in (small, large)]
            passed = time.monotonic() - began
            assert used[0] <= 0.02 * passed + 0.1, "no more than its share and a burst"
            assert used[1] <= 0.2 * passed + 0.1


async def test_three_hundred_sleep_at_once_without_threads_and_are_stopped_at_once(rig: Rig) -> None:
    handles = [await rig.start(rig.launch("sleeps")) for _ in range(300)]
    assert (await rig.run(rig.launch("sleeps", "sleep_ms", 20))).ok
    assert wasm_threads() <= 3
    for handle in handles:
        assert (await rig.executor.stats(handle)).mem_bytes == 65_536, "each has been running"
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for handle in handles:
                group.start_soon(rig.executor.stop, handle, 60.0)
    results = [await rig.wait(handle) for handle in handles]
    assert {result.reason for result in results} == {Reason.KILLED_BY_REQUEST}


async def test_sleepers_wake_up_in_the_order_of_their_alarms(rig: Rig) -> None:
    woken: list[int] = []

    async def sleep(ms: int) -> None:
        assert (await rig.run(rig.launch("sleeps", "sleep_ms", ms))).ok
        woken.append(ms)

    async with anyio.create_task_group() as group:
        for ms in (400, 200, 600, 1):
            group.start_soon(sleep, ms)
    assert woken == [1, 200, 400, 600]


async def test_stopped_sleepers_are_not_kept_until_their_alarms(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_file, "STALE_PARKED", 4)
    for _ in range(40):
        handle = await rig.start(rig.launch("sleeps"))
        with anyio.fail_after(10):
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
    with anyio.fail_after(5):
        await rig.executor.stop(handle, 60.0)


async def test_runs_stopped_at_any_moment_leave_nothing_behind(rig: Rig) -> None:
    random = Random(20)
    sources = ["sleeps", "spins", "echo", "arguments"]
    outputs_before = len(CUSTOM_OUTPUTS.handles)

    async def one(source: str, delay_s: float) -> None:
        handle = await rig.start(rig.launch(source, resources=f"cpus:{random.choice([0.05, 2])}"))
        await anyio.sleep(delay_s)
        await rig.executor.stop(handle, 60.0)
        await rig.wait(handle)
        await rig.executor.destroy(handle)

    with anyio.fail_after(30):
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
    assert wasm_threads() > before
    with anyio.fail_after(10):
        await rig.executor.close()
    assert wasm_threads() == before
    assert {(await rig.wait(handle)).reason for handle in waiting} == {Reason.KILLED_BY_REQUEST}


async def test_epochs_stand_still_while_nothing_runs(rig: Rig) -> None:
    await rig.start(rig.launch("sleeps"))
    assert (await rig.run(rig.launch("numbers", "nothing"))).ok
    runtime = rig.executor._runtime
    assert runtime is not None
    await until(lambda: runtime.workers._ticker._parked, "the ticker goes on")
