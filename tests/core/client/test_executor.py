"""The map executor: order, bounds, failures, cancelling, threads."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from typing import Any

import pytest

from edgerm_core.client import MapExecutor, TaskFailed
from edgerm_core.errors import SpecError
from edgerm_core.ids import TaskId, blob_id
from edgerm_core.messages import TaskUpdate
from edgerm_core.tasks import TaskSpec, TaskState
from tests.core.client.conftest import WAIT_S, AutoMaster

MODULE = b"\0asm\1\0\0\0"


def run(spec: TaskSpec) -> TaskUpdate | None:
    """Play the wasm executor: `square`, which traps at 13 and never ends for 99; `upper` for bytes."""
    implementation = spec.implementations[0]
    assert implementation.blob == blob_id(MODULE)
    if implementation.options == {"function": "upper", "abi": "bytes", "input": b"abc"}:
        return TaskUpdate(TaskId(0), 2, TaskState.FINISHED, result=b"ABC")
    assert implementation.options == {"function": "square"}
    value = implementation.args[0]
    assert not isinstance(value, str)
    if value == 13:
        return TaskUpdate(TaskId(0), 2, TaskState.FAILED, "trap", "unreachable executed")
    if value == 99:
        return None
    return TaskUpdate(TaskId(0), 2, TaskState.FINISHED, result=json.dumps(value * value).encode())


def executor(master: AutoMaster, **options: Any) -> MapExecutor:
    return MapExecutor(
        master.url,
        **{"module": MODULE, "function": "square", "plugins": master.plugins, "insecure": True, **options},
    )


def test_map_keeps_the_order_and_uploads_the_module_once() -> None:
    master = AutoMaster(run)
    with executor(master, max_in_flight=10) as pool:
        assert list(pool.map(range(12))) == [n * n for n in range(12)]
        assert list(pool.map([0.5])) == [0.25]
        assert list(pool.map([])) == []
    assert master.torn_down
    assert list(master.blobs.values()) == [MODULE]


def test_inputs_are_read_only_as_far_as_needed() -> None:
    master = AutoMaster(run)
    read: list[int] = []

    def endless() -> Any:
        for n in itertools.count(100):
            read.append(n)
            yield n

    with executor(master, max_in_flight=4) as pool:
        results = pool.map(endless())
        assert [next(results) for _ in range(20)] == [n * n for n in range(100, 120)]
        results.close()  # type: ignore[attr-defined]
    assert len(read) <= 20 + 4 + 1


def test_a_failure_stands_at_its_place_and_the_others_are_cancelled() -> None:
    master = AutoMaster(run)
    with executor(master) as pool:
        results = pool.map([2, 13, 99, 99])
        assert next(results) == 4
        with pytest.raises(TaskFailed, match=r"trap.*unreachable executed"):
            next(results)
        with pytest.raises(StopIteration):
            next(results)
    assert master.live == 0


def test_no_more_than_allowed_run_at_the_same_time() -> None:
    master = AutoMaster(run)
    with executor(master, max_in_flight=3) as pool, ThreadPoolExecutor(1) as thread:
        waiting = [pool.submit(99) for _ in range(3)]
        late = thread.submit(pool.submit, 99)
        with pytest.raises(TimeoutError):
            late.result(timeout=0.1)
        for future in waiting:
            future.cancel()
        late.result(timeout=WAIT_S).cancel()
    assert master.most_live <= 3


def test_cancelling_kills_the_task() -> None:
    master = AutoMaster(run)
    with executor(master) as pool:
        future = pool.submit(99)
        assert pool.submit(3).result(timeout=WAIT_S) == 9  # So that the one before is submitted too.
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result(timeout=WAIT_S)
    assert len(master.killed) == 1
    assert master.live == 0


def test_an_exception_in_the_block_kills_what_has_not_ended() -> None:
    master = AutoMaster(run)

    def work() -> None:
        with executor(master) as pool:
            pool.submit(99)
            pool.submit(2).result(timeout=WAIT_S)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert master.live == 0
    assert master.torn_down


def test_futures_work_with_the_standard_library() -> None:
    master = AutoMaster(run)
    with executor(master) as pool:
        futures = {pool.submit(n): n for n in range(12)}
        for future in as_completed(futures, timeout=WAIT_S):
            assert future.result() == futures[future] ** 2


def test_threads_may_share_an_executor() -> None:
    master = AutoMaster(run)
    with executor(master, max_in_flight=5) as pool, ThreadPoolExecutor(4) as threads:
        sums = threads.map(lambda start: sum(pool.map(range(start, start + 10))), (0, 20, 40, 60))
        assert list(sums) == [sum(n * n for n in range(s, s + 10)) for s in (0, 20, 40, 60)]


def test_bytes_go_in_and_out() -> None:
    master = AutoMaster(run)
    with executor(master, function="upper", abi="bytes") as pool:
        assert list(pool.map([b"abc"])) == [b"ABC"]
        with pytest.raises(SpecError, match="takes one bytes value"):
            pool.submit(1)


def test_wrong_use_is_named() -> None:
    master = AutoMaster(run)
    with pytest.raises(SpecError, match="max_in_flight"):
        executor(master, max_in_flight=0)
    with executor(master) as pool:
        with pytest.raises(SpecError, match="takes numbers"):
            pool.submit(b"abc")
        from_callback: list[BaseException | None] = []
        first = pool.submit(99)
        first.add_done_callback(lambda _: from_callback.append(_error(lambda: pool.submit(1))))
        pool.submit(1).result(timeout=WAIT_S)
        pool._portal.call(first.cancel)
        assert isinstance(from_callback[0], RuntimeError)
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(1)
    pool.shutdown()


def _error(call: Any) -> BaseException | None:
    try:
        call()
    except BaseException as error:
        return error
    return None
