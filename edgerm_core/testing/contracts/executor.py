"""What every executor must do: one test for each sentence of `interfaces.Executor`.

    class TestMyExecutor(ExecutorContract):
        @pytest.fixture
        def make_executor(self, tmp_path): return lambda: MyExecutor(tmp_path / "executor")

        @pytest.fixture
        def workloads(self, tmp_path): return MyWorkloads(tmp_path)

`Workloads` says how each situation is spelt for this executor. Where a fingerprint says that
something is not enforced or not offered here (`capabilities[...]` False or absent), the tests of it
are skipped with that reason; a suite that needs it checks the fingerprint in a test of its own.
Capabilities asked for: `logs`, `results`, `signals`, `mem_limit`, `survives_agent_restart`.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import cbor2
import msgspec
import pytest

from edgerm_core.errors import ExecutorError, SpecError, TaskLost
from edgerm_core.interfaces import Executor, TaskHandle, TaskLaunch, TaskStats
from edgerm_core.logs import STDOUT, LogReader
from edgerm_core.tasks import ExitResult, Reason
from edgerm_core.testing.contracts.asynchronous import AsyncContract
from edgerm_core.testing.sandboxes import DirectorySandbox

PATIENCE_S: Final = 60.0
"""No single step takes this long, not even on a small and busy machine."""

SOON_S: Final = 30.0
"""What must not wait for a long grace period is over within this."""

LONG_GRACE_S: Final = 60.0
"""Longer than any test may last: whoever waits for all of it fails."""

TRIES: Final = 5
"""Of so many the best one counts where pauses are measured: a busy machine makes pauses of its own."""

TURN_S: Final = 0.01
MAX_PAUSE_S: Final = 0.5
"""A few milliseconds are allowed; this much only shows what blocks on purpose."""

GRACE_S: Final = 0.8
"""Whoever blocks the event loop for all of it is far beyond MAX_PAUSE_S."""

MakeExecutor = Callable[[], Executor]


class Workloads(abc.ABC):
    """How the situations of the suite are spelt for one executor.

    Each method returns a launch that has never been returned before (a `task_id` of its own).
    """

    @abc.abstractmethod
    def prints(self, text: str) -> TaskLaunch:
        """A run that prints exactly `text` on standard output and ends well."""

    @abc.abstractmethod
    def exits(self, code: int) -> TaskLaunch:
        """A run that ends at once with this exit code."""

    @abc.abstractmethod
    def runs(self) -> TaskLaunch:
        """A run that goes on until it is stopped, and ends when politely asked to."""

    @abc.abstractmethod
    def ignores_stop(self) -> TaskLaunch:
        """A run that goes on although politely asked to end. It prints something once it is deaf.

        Where `capabilities["signals"]` is false there is no polite way: the same as `runs`.
        """

    @abc.abstractmethod
    def cannot_start(self) -> TaskLaunch | None:
        """A run that makes sense but cannot start, such as a program that is not there.

        None: whatever makes sense starts.
        """

    @abc.abstractmethod
    def bad_options(self) -> TaskLaunch:
        """A run with an option that the executor does not know."""

    @abc.abstractmethod
    def prints_much(self, total_bytes: int) -> TaskLaunch:
        """A run that prints that many bytes or a little more, then a last line `end`, and ends well."""

    @abc.abstractmethod
    def prints_env(self, name: str, value: str) -> TaskLaunch:
        """A run with one variable in its environment, whose value it prints, and which ends well."""

    def returns(self, result: bytes) -> TaskLaunch:
        """A run whose result is `result` (text of ASCII digits). Needed with `results`."""
        raise NotImplementedError

    def exceeds_memory(self, limit_mib: int) -> TaskLaunch:
        """A run granted `limit_mib` of memory that wants much more. Needed with `mem_limit`."""
        raise NotImplementedError

    def alive(self, launch: TaskLaunch) -> bool:
        """Return whether anything of this run lives now, looking past the executor (process table…).

        Override it wherever there is something to look at.
        """
        return False


class ExecutorContract(AsyncContract):
    """Subclass it, name the subclass `Test…`, and override the first two fixtures."""

    @pytest.fixture
    def make_executor(self) -> MakeExecutor:
        """A function that makes an executor. All it makes in one test share the agent's directories:
        the second one is the executor after an agent restart."""
        raise NotImplementedError

    @pytest.fixture
    def workloads(self) -> Workloads:
        raise NotImplementedError

    @pytest.fixture
    async def run(self, make_executor: MakeExecutor, tmp_path: Path) -> AsyncIterator[RunStarter]:
        starter = RunStarter(make_executor, tmp_path / "sandboxes")
        yield starter
        await starter.clean_up()

    # --- fingerprint ---

    async def test_fingerprint_names_a_healthy_executor(self, run: RunStarter) -> None:
        executor = run.executor
        for _ in range(2):
            with anyio.fail_after(PATIENCE_S):
                fingerprint = await executor.fingerprint()
            assert fingerprint.name == executor.name
            assert fingerprint.healthy, fingerprint.problem
            assert fingerprint.problem == ""
            assert fingerprint.version
            assert all(type(value) is bool for value in fingerprint.capabilities.values())
            cbor2.dumps(msgspec.to_builtins(fingerprint, builtin_types=(bytes,)))

    # --- start ---

    async def test_handle_is_plain_values_and_names_its_executor(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        handle = await run(workloads.runs())
        assert handle.executor == run.executor.name
        raw = cbor2.loads(cbor2.dumps(msgspec.to_builtins(handle, builtin_types=(bytes,))))
        assert msgspec.convert(raw, TaskHandle) == handle

    async def test_run_that_cannot_start_raises_with_a_sentence(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        launch = workloads.cannot_start()
        if launch is None:
            pytest.skip("the workloads have none that cannot start")
        with pytest.raises(ExecutorError) as caught:
            await run(launch)
        assert caught.value.reason
        assert len(str(caught.value)) > 10
        assert not workloads.alive(launch)

    async def test_unknown_option_raises_spec_error(self, run: RunStarter, workloads: Workloads) -> None:
        launch = workloads.bad_options()
        with pytest.raises(SpecError) as caught:
            await run(launch)
        assert len(str(caught.value)) > 10
        assert not workloads.alive(launch)

    async def test_failed_starts_do_no_harm_to_others(self, run: RunStarter, workloads: Workloads) -> None:
        neighbour = workloads.runs()
        handle = await run(neighbour)
        for failing in (workloads.cannot_start(), workloads.bad_options(), workloads.cannot_start()):
            launch = failing or workloads.bad_options()
            with pytest.raises((ExecutorError, SpecError)):
                await run(launch)
        assert (await run.to_end(workloads.exits(0))).ok
        with anyio.move_on_after(0.2) as scope:
            await run.executor.wait(handle)
        assert scope.cancelled_caught, "the neighbour ended"

    @pytest.mark.parametrize("after_s", [0.0, 0.001, 0.005, 0.02])
    async def test_cancelled_start_leaves_nothing(
        self, run: RunStarter, workloads: Workloads, after_s: float
    ) -> None:
        launch = workloads.runs()
        with anyio.move_on_after(after_s) as scope:
            await run(launch)
        if scope.cancelled_caught:
            await until(lambda: not workloads.alive(launch), "what a cancelled start began still lives")
        assert (await run.to_end(workloads.exits(0))).ok

    async def test_starting_leaves_the_event_loop_to_others(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        for _ in range(TRIES):
            async with _pauses() as pauses:
                await run(workloads.runs())
            if max(pauses) < MAX_PAUSE_S:
                return
        pytest.fail("start blocks the event loop: anyio.to_thread takes what is slow")

    # --- wait ---

    async def test_run_that_ends_well_is_ok(self, run: RunStarter, workloads: Workloads) -> None:
        result = await run.to_end(workloads.exits(0))
        assert result.ok
        assert result.reason == Reason.EXITED
        assert result.exit_code in (0, None)
        assert result.signal is None

    @pytest.mark.parametrize("code", [1, 3, 77])
    async def test_exit_code_is_reported(self, run: RunStarter, workloads: Workloads, code: int) -> None:
        result = await run.to_end(workloads.exits(code))
        assert not result.ok
        assert result.exit_code == code
        assert result.reason == Reason.EXIT_CODE
        assert str(code) in result.message

    async def test_wait_repeats_its_answer_long_after_the_end(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        handle = await run(workloads.exits(3))
        with anyio.fail_after(PATIENCE_S):
            first = await run.executor.wait(handle)
            assert await run.executor.wait(handle) == first

    async def test_cancelled_wait_loses_nothing(self, run: RunStarter, workloads: Workloads) -> None:
        handle = await run(workloads.runs())
        for _ in range(3):
            with anyio.move_on_after(0.05) as scope:
                await run.executor.wait(handle)
            assert scope.cancelled_caught
        with anyio.fail_after(PATIENCE_S):
            await run.executor.stop(handle, 0.0)
            await run.executor.wait(handle)

    async def test_several_waits_all_return(self, run: RunStarter, workloads: Workloads) -> None:
        handle = await run(workloads.runs())
        results: list[ExitResult] = []

        async def wait() -> None:
            results.append(await run.executor.wait(handle))

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(wait)
                await anyio.sleep(0.05)
                await run.executor.stop(handle, 0.0)
        assert len(results) == 3
        assert results[0] == results[1] == results[2]

    async def test_event_loop_goes_on_while_a_run_runs(self, run: RunStarter, workloads: Workloads) -> None:
        handle = await run(workloads.runs())
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(run.executor.wait, handle)
                for _ in range(50):
                    await anyio.sleep(0.001)
                await run.executor.destroy(handle)
                group.cancel_scope.cancel()

    async def test_many_at_once_keep_their_own_exits(self, run: RunStarter, workloads: Workloads) -> None:
        codes: dict[int, int | None] = {}

        async def one(code: int) -> None:
            codes[code] = (await run.to_end(workloads.exits(code))).exit_code

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                for code in range(1, 21):
                    group.start_soon(one, code)
        assert codes == {code: code for code in range(1, 21)}

    # --- stop ---

    async def test_polite_stop_ends_a_run_before_its_grace_is_over(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        launch = workloads.runs()
        handle = await run(launch)
        with anyio.fail_after(SOON_S):
            await run.executor.stop(handle, LONG_GRACE_S if await run.can("signals") else 0.0)
            result = await run.executor.wait(handle)
        assert result.message or result.ok
        assert not workloads.alive(launch)

    async def test_deaf_run_is_ended_after_its_grace(self, run: RunStarter, workloads: Workloads) -> None:
        for _ in range(TRIES):
            longest_pause_s = await _stop_deaf_run(run, workloads)
            if longest_pause_s < MAX_PAUSE_S or not await run.can("signals"):
                return
        pytest.fail("stop blocks the event loop while it waits for the end")

    async def test_wait_returns_while_a_stop_is_under_way(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        handle = await run(workloads.runs())
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(run.executor.wait, handle)
                group.start_soon(run.executor.stop, handle, 0.2)
                group.start_soon(run.executor.stop, handle, 0.2)

    async def test_stop_of_an_ended_run_is_no_error(self, run: RunStarter, workloads: Workloads) -> None:
        handle = await run(workloads.exits(5))
        with anyio.fail_after(SOON_S):
            before = await run.executor.wait(handle)
            await run.executor.stop(handle, LONG_GRACE_S)
            await run.executor.stop(handle, LONG_GRACE_S)
            assert await run.executor.wait(handle) == before

    # --- destroy ---

    async def test_destroy_ends_a_run_at_once(self, run: RunStarter, workloads: Workloads) -> None:
        launch = workloads.ignores_stop()
        handle = await run(launch)
        with anyio.fail_after(SOON_S):
            await run.executor.destroy(handle)
        assert not workloads.alive(launch)

    async def test_destroy_twice_or_of_nothing_never_raises(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        handle = await run(workloads.exits(0))
        with anyio.fail_after(SOON_S):
            await run.executor.wait(handle)
            await run.executor.destroy(handle)
            await run.executor.destroy(handle)
            await run.executor.destroy(TaskHandle(run.executor.name))
            await run.executor.destroy(TaskHandle(run.executor.name, 999, {"x": "nonsense"}))
        assert (await run.to_end(workloads.exits(0))).ok

    # --- recover ---

    async def test_running_run_survives_an_agent_restart_or_ends_with_it(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        launch = workloads.runs()
        handle = await run(launch)
        survives = await run.can("survives_agent_restart")
        await run.restart_agent()
        with anyio.fail_after(PATIENCE_S):
            if not survives:
                assert not workloads.alive(launch)
                with pytest.raises(TaskLost):
                    await run.executor.recover(handle)
                return
            recovered = await run.executor.recover(handle)
            with anyio.move_on_after(0.1) as scope:
                await run.executor.wait(recovered)
            assert scope.cancelled_caught, "it did not survive"
            await run.executor.stop(recovered, 5.0)
            await run.executor.wait(recovered)
            await run.executor.destroy(recovered)
        assert not workloads.alive(launch)

    async def test_exit_is_found_after_an_agent_restart(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        await run.need("survives_agent_restart")
        handle = await run(workloads.exits(42))
        await run.restart_agent()
        with anyio.fail_after(PATIENCE_S):
            recovered = await run.executor.recover(handle)
            assert (await run.executor.wait(recovered)).exit_code == 42

    async def test_a_sweep_ends_what_nobody_claims_and_nothing_else(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        await run.need("survives_agent_restart")
        forgotten, kept = workloads.runs(), workloads.runs()
        await run(forgotten)
        handle = await run(kept)
        await run.restart_agent()
        with anyio.fail_after(PATIENCE_S):
            await run.executor.fingerprint()
            await run.executor.sweep([handle])
            await run.executor.sweep([handle])
            assert not workloads.alive(forgotten)
            recovered = await run.executor.recover(handle)
            with anyio.move_on_after(0.1) as scope:
                await run.executor.wait(recovered)
            assert scope.cancelled_caught, "it was swept away"

    async def test_a_sweep_where_nothing_was_left_does_nothing(self, run: RunStarter) -> None:
        with anyio.fail_after(PATIENCE_S):
            await run.executor.fingerprint()
            await run.executor.sweep([])

    async def test_recovering_what_is_gone_raises_task_lost(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        handle = await run(workloads.exits(0))
        await run.executor.wait(handle)
        await run.executor.destroy(handle)
        await run.restart_agent()
        for gone in (handle, TaskHandle(run.executor.name, 999, {"x": "nonsense"})):
            with pytest.raises(TaskLost) as caught, anyio.fail_after(PATIENCE_S):
                await run.executor.recover(gone)
            assert len(str(caught.value)) > 10

    # --- stats and close ---

    async def test_stats_of_a_run_are_none_or_amounts(self, run: RunStarter, workloads: Workloads) -> None:
        handle = await run(workloads.runs())
        with anyio.fail_after(PATIENCE_S):
            stats = await run.executor.stats(handle)
        for value in (stats.cpu_s, stats.mem_bytes, stats.mem_peak_bytes):
            assert value is None or value >= 0

    async def test_stats_of_what_has_ended_or_never_was_are_none_and_no_error(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        handle = await run(workloads.exits(0))
        with anyio.fail_after(PATIENCE_S):
            await run.executor.wait(handle)
            await run.executor.destroy(handle)
            for gone in (handle, TaskHandle(run.executor.name, 999, {"x": "nonsense"})):
                assert await run.executor.stats(gone) == TaskStats()

    async def test_close_is_idempotent(self, make_executor: MakeExecutor) -> None:
        executor = make_executor()
        with anyio.fail_after(PATIENCE_S):
            await executor.fingerprint()
            await executor.close()
            await executor.close()

    # --- what a run sees, prints and returns ---

    async def test_output_is_in_the_log_when_the_run_has_ended(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        await run.need("logs")
        launch = workloads.prints("hello\nworld\n")
        assert (await run.to_end(launch)).ok
        assert run.printed(launch) == b"hello\nworld\n"

    async def test_run_gets_its_environment(self, run: RunStarter, workloads: Workloads) -> None:
        await run.need("logs")
        launch = workloads.prints_env("GREETING", "good day")
        assert (await run.to_end(launch)).ok
        assert run.printed(launch).strip() == b"good day"

    async def test_flood_of_output_leaves_a_bounded_ring_and_its_end(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        await run.need("logs")
        launch = workloads.prints_much(2_000_000)
        sandbox = run.sandbox(launch, log_limit_bytes=65_536)
        assert (await run.to_end(launch)).ok
        assert sum(path.stat().st_size for path in sandbox.log_dir.iterdir()) <= 2 * 65_536
        first, end = LogReader(sandbox.log_dir, STDOUT).bounds()
        assert end >= 2_000_000
        assert end - first <= 65_536
        assert run.printed(launch).endswith(b"end\n")

    async def test_result_value_is_reported(self, run: RunStarter, workloads: Workloads) -> None:
        await run.need("results")
        result = await run.to_end(workloads.returns(b"1234"))
        assert result.ok
        assert result.result == b"1234"

    async def test_run_beyond_its_memory_fails_alone_and_says_so(
        self, run: RunStarter, workloads: Workloads
    ) -> None:
        await run.need("mem_limit")
        handle = await run(workloads.runs())
        result = await run.to_end(workloads.exceeds_memory(32))
        assert not result.ok
        assert result.reason == Reason.OUT_OF_MEMORY
        assert "32" in result.message, "the sentence names the limit"
        with anyio.move_on_after(0.2) as scope:
            await run.executor.wait(handle)
        assert scope.cancelled_caught, "the neighbour ended"


async def _stop_deaf_run(run: RunStarter, workloads: Workloads) -> float:
    """Start a run that ignores polite requests and stop it; return for how long the event loop paused."""
    launch = workloads.ignores_stop()
    handle = await run(launch)
    if await run.can("signals") and await run.can("logs"):
        await until(lambda: run.printed(launch) != b"", "the run never said that it is deaf")
    started = anyio.current_time()
    async with _pauses() as pauses:
        with anyio.fail_after(SOON_S):
            await run.executor.stop(handle, GRACE_S)
    if await run.can("signals"):
        assert anyio.current_time() - started >= GRACE_S - 0.05, "it was given less than its grace"
    with anyio.fail_after(SOON_S):
        result = await run.executor.wait(handle)
    assert not result.ok
    assert result.message
    assert not workloads.alive(launch)
    return max(pauses)


@asynccontextmanager
async def _pauses() -> AsyncIterator[list[float]]:
    """Yield a list of how long the event loop made another coroutine wait, each time it had its turn."""
    pauses: list[float] = []

    async def watch() -> None:
        before = anyio.current_time()
        while True:
            await anyio.sleep(TURN_S)
            now = anyio.current_time()
            pauses.append(now - before)
            before = now

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await anyio.sleep(2 * TURN_S)
        yield pauses
        await anyio.sleep(2 * TURN_S)
        group.cancel_scope.cancel()


class RunStarter:
    """Starts runs for one test, each with a sandbox of its own, and remembers them for the cleanup."""

    def __init__(self, make_executor: MakeExecutor, base: Path) -> None:
        self.executor = make_executor()
        self._make_executor = make_executor
        self.handles: list[TaskHandle] = []
        self._base = base
        self._sandboxes: dict[int, DirectorySandbox] = {}

    def sandbox(self, launch: TaskLaunch, log_limit_bytes: int = 1 << 20) -> DirectorySandbox:
        """Return the sandbox of a launch; made by the first call."""
        found = self._sandboxes.get(launch.task_id)
        if found is None:
            found = DirectorySandbox(self._base / str(launch.task_id), log_limit_bytes)
            self._sandboxes[launch.task_id] = found
        return found

    def printed(self, launch: TaskLaunch) -> bytes:
        """Return what the ring of standard output holds."""
        reader = LogReader(self.sandbox(launch).log_dir, STDOUT)
        offset, end = reader.bounds()
        pieces: list[bytes] = []
        while offset < end:
            start, data = reader.read(offset, 1 << 16)
            if not data:
                break
            pieces.append(data)
            offset = start + len(data)
        return b"".join(pieces)

    async def __call__(self, launch: TaskLaunch) -> TaskHandle:
        """Start a run. Raises as `Executor.start`."""
        with anyio.fail_after(PATIENCE_S):
            handle = await self.executor.start(launch, self.sandbox(launch))
        self.handles.append(handle)
        return handle

    async def to_end(self, launch: TaskLaunch) -> ExitResult:
        """Start a run and return how it ended."""
        handle = await self(launch)
        with anyio.fail_after(PATIENCE_S):
            return await self.executor.wait(handle)

    async def restart_agent(self) -> None:
        """Close the executor and go on with a new one, as the agent's next process would."""
        await self.executor.close()
        self.executor = self._make_executor()

    async def clean_up(self) -> None:
        """Destroy all runs, and close the executor."""
        for handle in self.handles:
            with anyio.fail_after(PATIENCE_S):
                await self.executor.destroy(handle)
        with anyio.fail_after(PATIENCE_S):
            await self.executor.close()

    async def can(self, capability: str) -> bool:
        """Return whether the executor says that it does this here."""
        return (await self.executor.fingerprint()).capabilities.get(capability, False)

    async def need(self, capability: str) -> None:
        """Skip the test where the executor says that it does not do this here."""
        if not await self.can(capability):
            pytest.skip(f"executor {self.executor.name} says that it has no {capability} here")


async def until(condition: Callable[[], bool], otherwise: str, limit_s: float | None = None) -> None:
    """Wait until `condition` holds; fail with `otherwise` after `limit_s` seconds (None: `SOON_S`)."""
    with anyio.move_on_after(SOON_S if limit_s is None else limit_s):
        while not condition():  # noqa: ASYNC110 (what is looked at tells nobody when it changes)
            await anyio.sleep(0.01)
        return
    pytest.fail(otherwise)
