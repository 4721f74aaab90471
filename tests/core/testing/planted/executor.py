"""Executors with bugs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import msgspec
import pytest
from edgerm_executor_process.config import ProcessConfig
from edgerm_executor_process.executor import ProcessExecutor

from edgerm_core.agents import Fingerprint
from edgerm_core.errors import ExecutorError, SpecError
from edgerm_core.interfaces import Sandbox, TaskHandle, TaskLaunch, TaskStats
from edgerm_core.tasks import ExitResult, Reason
from edgerm_core.testing.contracts import executor as kit
from edgerm_core.testing.contracts.executor import ExecutorContract, MakeExecutor
from tests.plugins.executor_process.workloads import ProcessWorkloads


class Sound(ExecutorContract):
    caught_by: ClassVar[str]
    says: ClassVar[str] = ""
    bug: ClassVar[type[ProcessExecutor]]
    soon_s: ClassVar[float] = kit.SOON_S
    """Short only where it is waited for in vain: what else a test waits for may take its time."""

    @pytest.fixture
    def make_executor(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeExecutor:
        monkeypatch.setattr(kit, "SOON_S", type(self).soon_s)
        return lambda: type(self).bug(ProcessConfig(state_dir=str(tmp_path / "executor")))

    @pytest.fixture
    def workloads(self) -> ProcessWorkloads:
        return ProcessWorkloads()


class TestSound(Sound):
    bug = ProcessExecutor


class TestHasAnotherName(Sound):
    class bug(ProcessExecutor):
        async def fingerprint(self) -> Fingerprint:
            return msgspec.structs.replace(await super().fingerprint(), name="other")

    caught_by = "test_fingerprint_names_a_healthy_executor"


class TestMakesHandlesOfObjects(Sound):
    class bug(ProcessExecutor):
        async def start(self, launch: TaskLaunch, sandbox: Sandbox) -> TaskHandle:
            handle = await super().start(launch, sandbox)
            return TaskHandle(handle.executor, handle.version, {**handle.data, "dir": {1, 2}})

    caught_by = "test_handle_is_plain_values_and_names_its_executor"


class TestFailsAsTheSystemDoes(Sound):
    class bug(ProcessExecutor):
        async def start(self, launch: TaskLaunch, sandbox: Sandbox) -> TaskHandle:
            try:
                return await super().start(launch, sandbox)
            except ExecutorError as error:
                raise FileNotFoundError(2, "No such file") from error

    caught_by = "test_run_that_cannot_start_raises_with_a_sentence"
    says = "No such file"


class TestOverlooksOptions(Sound):
    class bug(ProcessExecutor):
        async def start(self, launch: TaskLaunch, sandbox: Sandbox) -> TaskHandle:
            try:
                return await super().start(launch, sandbox)
            except SpecError:
                known = msgspec.structs.replace(launch.implementation, options={})
                return await super().start(msgspec.structs.replace(launch, implementation=known), sandbox)

    caught_by = "test_unknown_option_raises_spec_error"
    says = "DID NOT RAISE"


class TestStartsOnWhenCancelled(Sound):
    class bug(ProcessExecutor):
        async def start(self, launch: TaskLaunch, sandbox: Sandbox) -> TaskHandle:
            with anyio.CancelScope(shield=True):
                handle = await super().start(launch, sandbox)
                await anyio.sleep(0.1)
            await anyio.lowlevel.checkpoint()
            return handle

    soon_s = 2.0
    caught_by = "test_cancelled_start_leaves_nothing[0.001]"
    says = "still lives"


class TestStartsInTheLoop(Sound):
    class bug(ProcessExecutor):
        async def start(self, launch: TaskLaunch, sandbox: Sandbox) -> TaskHandle:
            time.sleep(1)  # noqa: ASYNC251
            return await super().start(launch, sandbox)

    caught_by = "test_starting_leaves_the_event_loop_to_others"
    says = "start blocks the event loop"


class TestWaitsInTheLoop(Sound):
    class bug(ProcessExecutor):
        async def wait(self, handle: TaskHandle) -> ExitResult:
            time.sleep(60)  # noqa: ASYNC251
            return await super().wait(handle)

    @pytest.fixture
    def blocked_s(self) -> float:
        return 2.0

    caught_by = "test_event_loop_goes_on_while_a_run_runs"
    says = "this has blocked the event loop for 2 s"


class TestStopsInTheLoop(Sound):
    class bug(ProcessExecutor):
        async def stop(self, handle: TaskHandle, grace_s: float) -> None:
            time.sleep(grace_s)  # noqa: ASYNC251
            await super().stop(handle, 0.0)

    caught_by = "test_deaf_run_is_ended_after_its_grace"
    says = "stop blocks the event loop"


class TestAnswersOnce(Sound):
    class bug(ProcessExecutor):
        waited: ClassVar[set[str]] = set()

        async def wait(self, handle: TaskHandle) -> ExitResult:
            result = await super().wait(handle)
            if handle.data["key"] in self.waited:
                raise KeyError(handle.data["key"])
            self.waited.add(handle.data["key"])
            return result

    caught_by = "test_wait_repeats_its_answer_long_after_the_end"
    says = "KeyError"


class TestTakesEveryEndForAGoodOne(Sound):
    class bug(ProcessExecutor):
        async def wait(self, handle: TaskHandle) -> ExitResult:
            await super().wait(handle)
            return ExitResult(True, Reason.EXITED, exit_code=0)

    caught_by = "test_exit_code_is_reported[3]"


class TestGivesNoGrace(Sound):
    class bug(ProcessExecutor):
        async def stop(self, handle: TaskHandle, grace_s: float) -> None:
            await super().stop(handle, 0.0)

    caught_by = "test_deaf_run_is_ended_after_its_grace"
    says = "it was given less than its grace"


class TestAlwaysWaitsForAllOfTheGrace(Sound):
    class bug(ProcessExecutor):
        async def stop(self, handle: TaskHandle, grace_s: float) -> None:
            await anyio.sleep(grace_s)
            await super().stop(handle, 0.0)

    soon_s = 2.0
    caught_by = "test_polite_stop_ends_a_run_before_its_grace_is_over"
    says = "TimeoutError"


class TestDestroysOnlyWhatItKnows(Sound):
    class bug(ProcessExecutor):
        async def destroy(self, handle: TaskHandle) -> None:
            handle.data["key"]
            await super().destroy(handle)

    caught_by = "test_destroy_twice_or_of_nothing_never_raises"
    says = "KeyError"


class TestRecoversEverything(Sound):
    class bug(ProcessExecutor):
        async def recover(self, handle: TaskHandle) -> TaskHandle:
            return handle

    caught_by = "test_recovering_what_is_gone_raises_task_lost"
    says = "DID NOT RAISE"


class TestSweepsEverything(Sound):
    class bug(ProcessExecutor):
        async def sweep(self, kept: Sequence[TaskHandle]) -> None:
            await super().sweep([])

    caught_by = "test_a_sweep_ends_what_nobody_claims_and_nothing_else"


class TestHasStatsOfTheLivingOnly(Sound):
    class bug(ProcessExecutor):
        async def stats(self, handle: TaskHandle) -> TaskStats:
            handle.data["pid"]
            return await super().stats(handle)

    caught_by = "test_stats_of_what_has_ended_or_never_was_are_none_and_no_error"
    says = "KeyError"


class TestForgetsTheEnvironment(Sound):
    class bug(ProcessExecutor):
        async def start(self, launch: TaskLaunch, sandbox: Sandbox) -> TaskHandle:
            env = {name: value for name, value in launch.env.items() if name.startswith("EDGERM")}
            return await super().start(msgspec.structs.replace(launch, env=env), sandbox)

    caught_by = "test_run_gets_its_environment"


class TestLogsWithoutALimit(Sound):
    class bug(ProcessExecutor):
        async def start(self, launch: TaskLaunch, sandbox: Sandbox) -> TaskHandle:
            class Roomy:
                log_limit_bytes = 1 << 30

                def __getattr__(self, name: str) -> Any:
                    return getattr(sandbox, name)

            return await super().start(launch, Roomy())

    caught_by = "test_flood_of_output_leaves_a_bounded_ring_and_its_end"
