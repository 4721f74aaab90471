"""The daemon as a whole, with a scripted master over memory connections and a fake executor."""

from __future__ import annotations

import hashlib
import itertools
import random
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.abc
import pytest

from edgerm_core.agent import execution
from edgerm_core.agent import runner as runner_module
from edgerm_core.agent.runner import run_agent
from edgerm_core.agents import Fingerprint
from edgerm_core.builtin import memory_transport, static_devices
from edgerm_core.builtin.memory_transport import MemoryTransport
from edgerm_core.codec import decode_batch, encode_batch
from edgerm_core.config import Config, parse_config
from edgerm_core.errors import (
    ConfigError,
    ConnectionClosed,
    ExecutorError,
    PluginError,
    RefusedError,
    SpecError,
    StoreLocked,
)
from edgerm_core.hookspecs import hookimpl
from edgerm_core.ids import BlobId, TaskId, blob_id
from edgerm_core.interfaces import Connection, Executor, Fence, Provider, TaskHandle, TaskLaunch, TaskStats
from edgerm_core.limits import BLOB_CHUNK_BYTES
from edgerm_core.logs import STDOUT, LogWriter
from edgerm_core.messages import (
    Acknowledge,
    BlobData,
    BlobGet,
    Failed,
    Heartbeat,
    Inventory,
    Kill,
    Launch,
    LogData,
    LogGet,
    LogStream,
    Message,
    Refused,
    Register,
    Registered,
    StatusUpdate,
    TaskUsage,
    Usage,
)
from edgerm_core.plugins import Plugins
from edgerm_core.resources import Resources
from edgerm_core.tasks import ExitResult, File, Implementation, Reason, RestartPolicy, TaskState, Volume
from edgerm_core.testing.agents import a_launch
from edgerm_core.testing.fakes import FakeExecutor, RunKey, Script

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0
M = TypeVar("M", bound=Message)

RUNS_ON = Script()


class Master:
    """Takes agents in, acknowledges what they say, serves blobs, and remembers everything.

    Attributes:
        received: every message, in order.
        blobs: what it has.
        answers: replaces the answer to a BlobGet; None: no answer.
        deaf: whether it answers nothing but registrations.
    """

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.frames = 0
        self.blobs: dict[BlobId, bytes] = {}
        self.answers: Callable[[BlobGet], Message | None] = self.blob_data
        self.acknowledges = True
        self.refusal: Refused | None = None
        #: A long lease: this master answers no heartbeats.
        self.registered_as = Registered(1, 10.0, 600.0, "m")
        self.deaf = False
        self.connection: Connection | None = None
        self._changed = anyio.Event()

    async def serve(self, connection: Connection) -> None:
        self.connection = connection
        try:
            while True:
                messages = decode_batch(await connection.receive())
                self.frames += 1
                self.received += messages
                answers = [answer for message in messages if (answer := self.answer(message)) is not None]
                if answers:
                    await connection.send(encode_batch(answers))
                self._changed.set()
                self._changed = anyio.Event()
        except ConnectionClosed:
            pass

    def answer(self, message: Message) -> Message | None:
        if isinstance(message, Register):
            return self.refusal or self.registered_as
        if self.deaf:
            return None
        if isinstance(message, StatusUpdate) and self.acknowledges:
            return Acknowledge(message.task_id, message.attempt, message.seq)
        return self.answers(message) if isinstance(message, BlobGet) else None

    def blob_data(self, get: BlobGet) -> Message:
        data = self.blobs.get(get.blob)
        if data is None:
            return Failed(get.request_id, "not-found", "there is no such blob")
        piece = data[get.offset : get.offset + get.length]
        return BlobData(get.request_id, get.blob, get.offset, len(data), piece)

    async def send(self, *messages: Message) -> None:
        assert self.connection is not None
        await self.connection.send(encode_batch(messages))

    def all(self, kind: type[M]) -> list[M]:
        return [message for message in self.received if isinstance(message, kind)]

    async def until(self, condition: Callable[[], Any]) -> None:
        with anyio.fail_after(PATIENCE_S):
            while not condition():
                await self._changed.wait()

    async def registered(self, times: int = 1) -> None:
        await self.until(lambda: len(self.all(Register)) >= times)

    async def ended(self, task_id: int = 1, attempt: int = 1) -> StatusUpdate:
        def ends() -> list[StatusUpdate]:
            return [
                u
                for u in self.all(StatusUpdate)
                if (u.task_id, u.attempt) == (task_id, attempt) and u.state.terminal
            ]

        await self.until(ends)
        return ends()[0]

    async def reached(self, state: TaskState, task_id: int = 1) -> None:
        await self.until(
            lambda: any(u.task_id == task_id and u.state is state for u in self.all(StatusUpdate))
        )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something on the disk, which tells nobody when it changes."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.01)


class FakePlugin:
    """Provides the fake executor, and one that cannot be created."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    @hookimpl
    def executors(self) -> Iterable[Provider[Executor]]:
        def fail(_: object) -> Executor:
            raise RuntimeError("no such engine here")

        yield Provider("fake", lambda _: self._executor)
        yield Provider("broken", fail)


class Site:
    """A master, a data directory, and agents on it."""

    def __init__(self, data_dir: Path, url: str) -> None:
        self.data_dir = data_dir
        self.url = url
        self.master = Master()
        self.executor = FakeExecutor()

    def config(self, extra: str = "", agent: str = "") -> Config:
        text = f'[agent]\nmasters = ["{self.url}"]\ndata_dir = "{self.data_dir}"\n{agent}\n{extra}'
        return parse_config(text)

    def plugins(self, config: Config) -> Plugins:
        plugins = Plugins(config)
        plugins.add(memory_transport, "memory", "edgerm-core", "0")
        plugins.add(static_devices, "static-devices", "edgerm-core", "0")
        plugins.add(FakePlugin(self.executor), "fake", "test", "0")
        return plugins

    async def run(self, extra: str = "", agent: str = "") -> None:
        config = self.config(extra, agent)
        await run_agent(config, self.plugins(config), rng=random.Random(1))

    @asynccontextmanager
    async def agent(self, extra: str = "", agent: str = "") -> AsyncIterator[None]:
        """Run an agent meanwhile, registered."""
        times = len(self.master.all(Register)) + 1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.run, extra, agent)
            await self.master.registered(times)
            yield
            tasks.cancel_scope.cancel()


NUMBERS = itertools.count()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    url = f"memory://agent-test-{next(NUMBERS)}"
    site = Site(tmp_path / "agent", url)
    listener = await MemoryTransport().listen(url)
    with anyio.fail_after(4 * PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, lambda connection: site.master.serve(connection))
            yield site
            tasks.cancel_scope.cancel()
    await listener.close()


# --- starting, registering ----------------------------------------------------------------------


async def test_it_registers_with_what_it_has(site: Site) -> None:
    async with site.agent(agent='name = "gw"\nattributes = { floor = 3 }\nresources = "cpus:1;tokens:7"'):
        register = site.master.all(Register)[0]
    info = register.info
    assert (info.name, info.attributes["floor"], info.attributes["os"]) == ("gw", 3, "linux")
    assert (info.totals.scalars["cpus"], info.totals.scalars["tokens"]) == (1000, 7000)
    assert [fingerprint.name for fingerprint in info.executors] == ["fake"], "the broken one is left out"
    assert register.boot_id
    assert register.incarnation


async def test_its_id_is_kept_and_its_incarnation_is_not(site: Site) -> None:
    async with site.agent():
        pass
    async with site.agent():
        first, second = site.master.all(Register)
    assert first.info.id == second.info.id
    assert first.incarnation != second.incarnation


async def test_two_agents_cannot_share_a_directory(site: Site) -> None:
    async with site.agent():
        with pytest.raises(StoreLocked, match="another agent uses"):
            await site.run()


async def test_a_final_refusal_ends_it_with_the_master_s_sentence(site: Site) -> None:
    site.master.refusal = Refused("session-replaced", "another agent with the id a1 is connected")
    with pytest.raises(RefusedError, match="another agent with the id a1"):
        await site.run()
    assert site.executor.closed


async def test_it_does_not_join_a_master_off_loopback_by_accident(site: Site) -> None:
    config = Config(agent=site.config().agent.__class__(masters=("ws://192.0.2.1:7070",)))
    with pytest.raises(ConfigError, match="refusing to join"):
        await run_agent(config, site.plugins(config))


async def test_a_missing_transport_is_named(site: Site) -> None:
    config = Config(agent=site.config().agent.__class__(masters=("ws://127.0.0.1:7070",)))
    with pytest.raises(PluginError, match="edgerm-transport-ws"):
        await run_agent(config, site.plugins(config))


async def test_it_comes_back_after_a_lost_connection(site: Site) -> None:
    async with site.agent():
        assert site.master.connection is not None
        await site.master.connection.close("the cable was pulled")
        await site.master.registered(2)


async def test_a_master_that_sends_rubbish_is_left_and_dialled_again(site: Site) -> None:
    async with site.agent():
        assert site.master.connection is not None
        await site.master.connection.send(b"\xff rubbish")
        await site.master.registered(2)


async def test_a_silent_master_is_left_and_dialled_again(site: Site) -> None:
    site.master.registered_as = Registered(1, 0.05, 0.2, "m")
    site.master.deaf = True
    async with site.agent():
        await site.master.registered(2)
        # A machine that is busy for the whole of a lease says goodbye without one; the next one has it.
        await site.master.until(lambda: site.master.all(Heartbeat))


# --- tasks --------------------------------------------------------------------------------------


async def test_a_task_runs_and_its_result_comes_back(site: Site) -> None:
    site.executor.script = lambda launch: Script(ExitResult(True, Reason.EXITED, exit_code=0, result=b"42"))
    async with site.agent():
        await site.master.send(
            a_launch(env={"COLOUR": "red"}, resources=Resources.parse("ports:[31000-31001]"))
        )
        end = await site.master.ended()
    assert (end.state, end.result) == (TaskState.FINISHED, b"42")
    env = site.executor.started[0].env
    assert env["COLOUR"] == "red"
    assert env["EDGERM_TASK_ID"] == "t1"
    assert env["EDGERM_ATTEMPT"] == "1"
    assert env["EDGERM_PORTS"] == "31000,31001"
    assert env["EDGERM_PORT_1"] == "31001"
    assert not site.executor.running, "it was destroyed"
    assert not (site.data_dir / "tasks").exists(), "a task that needs no files touches no disk"


async def test_a_thousand_short_tasks_travel_in_few_frames(site: Site) -> None:
    async with site.agent():
        before = site.master.frames
        for first in range(1, 1001, 100):
            await site.master.send(*(a_launch(task_id) for task_id in range(first, first + 100)))
        await site.master.until(
            lambda: sum(u.state is TaskState.FINISHED for u in site.master.all(StatusUpdate)) == 1000
        )
        assert site.master.frames - before < 400


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (SpecError("no option 'colour'"), TaskState.ERROR, Reason.SPEC_INVALID),
        (ExecutorError("no such program", reason="launch-failed"), TaskState.FAILED, "launch-failed"),
        (
            ExecutorError("engine away", reason=Reason.EXECUTOR_UNAVAILABLE),
            TaskState.DROPPED,
            Reason.EXECUTOR_UNAVAILABLE,
        ),
        (ZeroDivisionError("oops"), TaskState.FAILED, Reason.LAUNCH_FAILED),
    ],
)
async def test_whatever_start_raises_is_that_task_s_end_and_no_other_s(
    site: Site, error: Exception, state: TaskState, reason: str
) -> None:
    site.executor.script = lambda launch: (
        Script(start_error=error) if launch.task_id == 1 else Script(ExitResult(True, Reason.EXITED))
    )
    async with site.agent():
        await site.master.send(a_launch(1), a_launch(2))
        end, other = await site.master.ended(1), await site.master.ended(2)
    assert (end.state, end.reason) == (state, reason)
    assert str(error) in end.message
    assert other.state is TaskState.FINISHED


async def test_an_exception_while_following_fails_the_task(site: Site) -> None:
    site.executor.script = lambda launch: Script(wait_error=ZeroDivisionError("oops"))
    async with site.agent():
        await site.master.send(a_launch())
        end = await site.master.ended()
    assert end.state is TaskState.FAILED
    assert "ZeroDivisionError: oops" in end.message
    assert not site.executor.running


async def test_nonsense_as_an_exit_fails_the_task_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(handle: TaskHandle) -> Any:
        return "it ended"

    monkeypatch.setattr(site.executor, "wait", wait)
    async with site.agent():
        await site.master.send(a_launch())
        end = await site.master.ended()
    assert end.state is TaskState.FAILED
    assert "returned str, expected an ExitResult" in end.message


async def test_a_start_that_hangs_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "START_TIMEOUT_S", 0.05)
    site.executor.script = lambda launch: Script(start_hangs=True)
    async with site.agent():
        await site.master.send(a_launch())
        end = await site.master.ended()
    assert end.state is TaskState.FAILED
    assert "did not start" in end.message


async def test_a_long_start_says_how_far_it_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "PROGRESS_EVERY_S", 4 * PATIENCE_S)
    site.executor.script = lambda launch: Script(start_hangs=True, reports=("pulling: 1 of 2", "too soon"))
    async with site.agent():
        await site.master.send(a_launch())
        await site.master.reached(TaskState.STARTING)
        site.executor.go_on()
        await site.master.reached(TaskState.RUNNING)
    said = [(u.state, u.reason, u.message) for u in site.master.all(StatusUpdate)]
    assert (TaskState.STARTING, Reason.STARTING, "pulling: 1 of 2") in said
    assert not [message for *_, message in said if message == "too soon"]


async def test_of_many_reports_the_latest_is_told(
    site: Site, monkeypatch: pytest.MonkeyPatch, pass_time: Callable[[float], None]
) -> None:
    monkeypatch.setattr(execution, "PROGRESS_EVERY_S", PATIENCE_S)
    site.executor.script = lambda launch: Script(start_hangs=True, reports=("one", "two", "three"))
    async with site.agent():
        await site.master.send(a_launch())
        await site.master.until(lambda: len(site.master.all(StatusUpdate)) == 1)
        pass_time(PATIENCE_S)
        await site.master.until(lambda: len(site.master.all(StatusUpdate)) == 2)
    assert [update.message for update in site.master.all(StatusUpdate)] == ["one", "three"]


async def test_a_start_that_reports_may_take_longer_than_a_silent_one(
    site: Site, monkeypatch: pytest.MonkeyPatch, pass_time: Callable[[float], None]
) -> None:
    monkeypatch.setattr(execution, "START_TIMEOUT_S", PATIENCE_S)
    site.executor.script = lambda launch: RUNS_ON if launch.task_id == 2 else Script(start_hangs=True)
    async with site.agent():
        await site.master.send(a_launch())
        await site.executor.until(lambda: bool(site.executor.sandboxes))
        (sandbox,) = site.executor.sandboxes.values()
        for _ in range(3):
            pass_time(PATIENCE_S / 2)
            sandbox.report("still pulling")
            await anyio.wait_all_tasks_blocked()
        site.executor.go_on()
        await site.master.reached(TaskState.RUNNING)


async def test_runs_that_no_record_knows_are_swept_away_before_anything_else(site: Site) -> None:
    site.executor.script = lambda launch: RUNS_ON
    async with site.agent():
        await site.master.send(a_launch())
        await site.master.reached(TaskState.RUNNING)
    survivor: RunKey = (TaskId(1), 1, 0)
    before, site.executor = site.executor, FakeExecutor(survivors={survivor: None})
    async with site.agent():
        await site.executor.until(lambda: bool(site.executor.running))
    assert before.swept == [[]]
    assert site.executor.swept == [[TaskHandle("fake", data={"key": [1, 1, 0]})]]


async def test_what_tasks_use_is_told_when_it_has_changed(site: Site) -> None:
    site.executor.script = lambda launch: RUNS_ON
    site.executor.usage = TaskStats(1.5, 4 << 20)
    async with site.agent(agent="usage_every_s = 0.05"):
        await site.master.send(a_launch())
        await site.master.until(lambda: site.master.all(Usage))
        site.executor.usage = TaskStats(2.5, 4 << 20)
        await site.master.until(lambda: len(site.master.all(Usage)) == 2)
    first, second = [message.tasks for message in site.master.all(Usage)]
    assert first == (TaskUsage(TaskId(1), 1, 1500, 4096),)
    assert second == (TaskUsage(TaskId(1), 1, 2500, 4096),)


async def test_an_executor_that_turns_out_to_be_gone_is_looked_at_at_once(site: Site) -> None:
    gone = ExecutorError("the engine does not answer", reason=Reason.EXECUTOR_UNAVAILABLE)

    def fail(launch: TaskLaunch) -> Script:
        site.executor.fingerprinted = Fingerprint("fake", healthy=False, problem="no engine")
        return Script(start_error=gone)

    site.executor.script = fail
    async with site.agent():
        await site.master.send(a_launch())
        assert (await site.master.ended()).state is TaskState.DROPPED
        await site.master.until(lambda: site.master.all(Inventory))
    (inventory,) = site.master.all(Inventory)
    assert inventory.executors == (site.executor.fingerprinted,)


async def test_a_kill_while_it_starts_cancels_the_start(site: Site) -> None:
    site.executor.script = lambda launch: Script(start_hangs=True)
    async with site.agent():
        await site.master.send(a_launch())
        await site.executor.until(lambda: bool(site.executor.started))
        await site.master.send(Kill(TaskId(1), 1))
        assert (await site.master.ended()).state is TaskState.KILLED
    assert not site.executor.stopped


async def test_a_kill_stops_a_running_task_with_its_grace(site: Site) -> None:
    site.executor.script = lambda launch: RUNS_ON
    async with site.agent():
        await site.master.send(a_launch())
        await site.master.reached(TaskState.RUNNING)
        await site.master.send(Kill(TaskId(1), 1, 7.0))
        end = await site.master.ended()
    assert (end.state, end.signal) == (TaskState.KILLED, 15)
    assert [grace_s for _, grace_s in site.executor.stopped] == [7.0]


async def test_an_executor_that_cannot_stop_a_task_does_not_keep_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "STOP_TIMEOUT_S", 0.05)
    monkeypatch.setattr(execution, "REPORT_TIMEOUT_S", 0.05)
    site.executor.script = lambda launch: Script(deaf=True)
    async with site.agent():
        await site.master.send(a_launch())
        await site.master.reached(TaskState.RUNNING)
        await site.master.send(Kill(TaskId(1), 1, 0.0))
        assert (await site.master.ended()).state is TaskState.KILLED
    assert not site.executor.running


async def test_a_restart_in_place_uses_the_same_sandbox(site: Site) -> None:
    def script(launch: TaskLaunch) -> Script:
        return Script(ExitResult(launch.restarts == 1, Reason.EXITED))

    site.executor.script = script
    async with site.agent():
        await site.master.send(a_launch(restart=RestartPolicy(on="failure", delay_s=0.01)))
        end = await site.master.ended()
    assert (end.state, end.restarts) == (TaskState.FINISHED, 1)
    first, second = site.executor.sandboxes.values()
    assert first is second
    assert [launch.env["EDGERM_RESTARTS"] for launch in site.executor.started] == ["0", "1"]


@pytest.mark.parametrize("refusals", [3, 10_000])
async def test_what_cannot_be_removed_is_tried_again_and_then_named(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refusals: int
) -> None:
    removals: list[Path] = []
    rmtree = shutil.rmtree

    def refusing(path: Path, *, ignore_errors: bool) -> None:
        removals.append(path)
        if len(removals) > refusals:
            rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", refusing)
    monkeypatch.setattr(runner_module, "CLEAN_EVERY_S", 0.01)
    place = site.data_dir / "tasks" / "t1.1" / "volumes"
    async with site.agent():
        await site.master.send(a_launch(volumes=(Volume("scratch"),)))
        await site.master.ended()
        await until(lambda: not place.exists() or "cannot be removed" in caplog.text)
    assert place.exists() is (refusals > 3)
    assert (f"{place} cannot be removed" in caplog.text) is (refusals > 3)


async def test_files_and_volumes_are_laid_out(site: Site) -> None:
    seen: dict[str, Any] = {}

    def script(launch: TaskLaunch) -> Script:
        sandbox = site.executor.sandboxes.get((launch.task_id, 1, 0))
        seen["volumes"] = {volume.path: place for volume, place in launch.volumes}
        seen["mode"] = {
            path.name: path.stat().st_mode & 0o777
            for path in sorted((site.data_dir / "tasks/t1.1/work").rglob("*"))
            if path.is_file()
        }
        assert sandbox is None
        return Script(ExitResult(True, Reason.EXITED))

    site.executor.script = script
    data = b"#!/bin/sh\n"
    site.master.blobs[blob_id(data)] = data
    async with site.agent():
        files = (File("bin/run.sh", blob_id(data), True), File("notes.txt", blob_id(data)))
        await site.master.send(a_launch(files=files, volumes=(Volume("keep", "db"), Volume("scratch"))))
        await site.master.ended()
        assert seen["mode"] == {"run.sh": 0o755, "notes.txt": 0o644}
        assert seen["volumes"]["keep"] == site.data_dir / "volumes/f/db"
        await until(lambda: not (site.data_dir / "tasks/t1.1").exists())
        assert (site.data_dir / "volumes/f/db").is_dir(), "a persistent volume stays"


async def test_devices_are_handed_to_the_run_and_taken_back(site: Site) -> None:
    site.executor.script = lambda launch: Script(
        ExitResult(True, Reason.EXITED) if launch.task_id == 2 else None
    )
    section = '[device_driver.static]\ndevices = [{ id = "led0", type = "led", env = { LED = "17" } }]'
    led = Resources(devices={"led0": 1})
    async with site.agent(section):
        assert site.master.all(Register)[0].info.totals.devices == {"led0": 1}
        await site.master.send(a_launch(1, resources=led))
        await site.master.reached(TaskState.RUNNING)
        assert site.executor.started[0].env["LED"] == "17"
        await site.master.send(a_launch(2, resources=led))
        assert (await site.master.ended(2)).reason == Reason.RESOURCES_UNAVAILABLE
        site.executor.exit(1)
        await site.master.ended(1)
        await site.master.send(a_launch(2, 2, resources=led))
        assert (await site.master.ended(2, 2)).state is TaskState.FINISHED


# --- blobs --------------------------------------------------------------------------------------


def with_module(task_id: int, data: bytes) -> Launch:
    launch = a_launch(task_id)
    return Launch(launch.task_id, 1, launch.framework_id, "job", Implementation("fake", blob=blob_id(data)))


LARGE = random.Random(7).randbytes(5 * BLOB_CHUNK_BYTES + 17)


@pytest.mark.parametrize("data", [LARGE, b"", LARGE[:BLOB_CHUNK_BYTES]])
async def test_a_module_is_fetched_once_and_kept(site: Site, data: bytes) -> None:
    site.master.blobs[blob_id(data)] = data
    async with site.agent():
        await site.master.send(with_module(1, data), with_module(2, data))
        await site.master.ended(1)
        await site.master.ended(2)
        asked = len(site.master.all(BlobGet))
        await site.master.send(with_module(3, data))
        await site.master.ended(3)
        assert len(site.master.all(BlobGet)) == asked == max(1, -(-len(data) // BLOB_CHUNK_BYTES))
    path = site.executor.started[0].blob_path
    assert path is not None
    assert path.read_bytes() == data
    fetching = [u for u in site.master.all(StatusUpdate) if u.reason == Reason.FETCHING]
    assert {u.task_id for u in fetching} == {1, 2}


@pytest.mark.parametrize("process_too", [False, True])
async def test_a_transfer_goes_on_where_it_was_cut_off(site: Site, process_too: bool) -> None:
    site.master.blobs[blob_id(LARGE)] = LARGE
    cut = anyio.Event()

    def answers(get: BlobGet) -> Message | None:
        if get.offset >= 3 * BLOB_CHUNK_BYTES:
            cut.set()
            return None
        return site.master.blob_data(get)

    site.master.answers = answers
    part = site.data_dir / "blobs" / f"{hashlib.sha256(LARGE).hexdigest()}.part"
    policy = RestartPolicy(on="failure", delay_s=0.01)
    launch = with_module(1, LARGE)
    launch = Launch(launch.task_id, 1, launch.framework_id, "job", launch.implementation, restart=policy)

    async def until_cut() -> None:
        await cut.wait()
        await until(lambda: part.exists() and part.stat().st_size >= 3 * BLOB_CHUNK_BYTES)
        site.master.received = [m for m in site.master.received if not isinstance(m, BlobGet)]
        site.master.answers = site.master.blob_data

    if process_too:
        async with site.agent():
            await site.master.send(launch)
            await until_cut()
        async with site.agent():
            assert (await site.master.ended()).state is TaskState.FINISHED
    else:
        async with site.agent():
            await site.master.send(launch)
            await until_cut()
            assert site.master.connection is not None
            await site.master.connection.close("the cable was pulled")
            assert (await site.master.ended()).state is TaskState.FINISHED
    assert min(get.offset for get in site.master.all(BlobGet)) == 3 * BLOB_CHUNK_BYTES


async def test_a_damaged_blob_is_fetched_again_and_then_given_up(site: Site) -> None:
    wrong = bytes(len(LARGE))
    site.master.blobs[blob_id(LARGE)] = wrong
    async with site.agent():
        await site.master.send(with_module(1, LARGE))
        end = await site.master.ended()
        assert (end.state, end.reason) == (TaskState.FAILED, Reason.BLOB_INVALID)
        site.master.blobs[blob_id(LARGE)] = LARGE
        await site.master.send(with_module(2, LARGE))
        assert (await site.master.ended(2)).state is TaskState.FINISHED


async def test_a_blob_the_master_does_not_have_fails_the_task(site: Site) -> None:
    async with site.agent():
        await site.master.send(with_module(1, LARGE))
        end = await site.master.ended()
    assert (end.state, end.reason) == (TaskState.FAILED, Reason.BLOB_UNAVAILABLE)
    assert "no such blob" in end.message


async def test_a_blob_larger_than_the_cache_is_refused(site: Site) -> None:
    site.master.blobs[blob_id(LARGE)] = LARGE
    async with site.agent(agent="blob_cache_bytes = 1000"):
        await site.master.send(with_module(1, LARGE))
        assert "agent.blob_cache_bytes" in (await site.master.ended()).message


async def test_a_kill_while_fetching_ends_the_task(site: Site) -> None:
    site.master.answers = lambda get: None
    async with site.agent():
        await site.master.send(with_module(1, LARGE))
        await site.master.reached(TaskState.STARTING)
        await site.master.send(Kill(TaskId(1), 1))
        assert (await site.master.ended()).state is TaskState.KILLED


# --- the agent's restart ------------------------------------------------------------------------


async def test_a_surviving_task_goes_on_over_an_agent_restart(site: Site) -> None:
    site.executor.script = lambda launch: RUNS_ON
    async with site.agent():
        await site.master.send(a_launch())
        await site.master.reached(TaskState.RUNNING)
    assert not site.executor.stopped, "ending the agent does not end its tasks"
    site.executor = FakeExecutor(survivors={(TaskId(1), 1, 0): None})
    async with site.agent():
        register = site.master.all(Register)[-1]
        assert [(r.task_id, r.state) for r in register.tasks] == [(1, TaskState.RUNNING)]
        await site.executor.until(lambda: bool(site.executor.running))
        site.executor.exit(1)
        end = await site.master.ended()
    assert (end.seq, end.state) == (2, TaskState.FINISHED)
    assert not site.executor.started


async def test_an_end_while_the_agent_was_away_is_reported(site: Site) -> None:
    site.executor.script = lambda launch: RUNS_ON
    async with site.agent():
        await site.master.send(a_launch())
        await site.master.reached(TaskState.RUNNING)
    result = ExitResult(False, Reason.EXIT_CODE, exit_code=3)
    site.executor = FakeExecutor(survivors={(TaskId(1), 1, 0): result})
    async with site.agent():
        assert (await site.master.ended()).exit_code == 3


async def test_a_task_lost_with_the_machine_is_reported_as_a_loss(site: Site) -> None:
    site.executor.script = lambda launch: RUNS_ON
    async with site.agent():
        await site.master.send(a_launch())
        await site.master.reached(TaskState.RUNNING)
    site.executor = FakeExecutor()
    async with site.agent():
        end = await site.master.ended()
    assert (end.state, end.reason) == (TaskState.FAILED, Reason.AGENT_RESTARTED)


async def test_a_service_starts_again_after_a_reboot_without_any_master(site: Site) -> None:
    site.executor.script = lambda launch: RUNS_ON
    async with site.agent():
        await site.master.send(a_launch(restart=RestartPolicy(on="always", delay_s=0.01)))
        await site.master.reached(TaskState.RUNNING)
    site.executor = FakeExecutor()
    site.executor.script = lambda launch: RUNS_ON
    site.url = "memory://nobody-listens-here"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(site.run)
        with anyio.fail_after(PATIENCE_S):
            await site.executor.until(lambda: bool(site.executor.running))
        tasks.cancel_scope.cancel()
    assert [(launch.attempt, launch.restarts) for launch in site.executor.started] == [(1, 1)]


async def test_what_was_not_acknowledged_is_said_again_after_the_restart(site: Site) -> None:
    site.master.acknowledges = False
    async with site.agent():
        await site.master.send(a_launch())
        await site.master.ended()
    site.master.acknowledges = True
    site.master.received.clear()
    async with site.agent():
        await site.master.ended()
    assert [u.seq for u in site.master.all(StatusUpdate)] == [1, 2]


async def test_an_unacknowledged_end_does_not_keep_the_sandbox_after_a_restart(site: Site) -> None:
    site.master.acknowledges = False
    task_dir = site.data_dir / "tasks" / "t1.1"
    async with site.agent():
        await site.master.send(a_launch())
        await site.master.ended()
        # As when the agent dies before it has cleaned up.
        for name in ("work", "logs"):
            (task_dir / name).mkdir(parents=True, exist_ok=True)
    async with site.agent():
        await site.master.ended()
        assert not (task_dir / "work").exists()
        await site.master.send(LogGet(1, TaskId(1), LogStream.STDOUT, follow=True))
        await log_end(site.master, 1)


async def test_devices_are_reserved_again_with_the_same_fence(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    fences: list[Fence] = []
    reserve = static_devices.StaticDriver.reserve

    async def noting(self: static_devices.StaticDriver, device: str, task: TaskId, fence: Fence) -> Any:
        fences.append(fence)
        return await reserve(self, device, task, fence)

    monkeypatch.setattr(static_devices.StaticDriver, "reserve", noting)
    section = '[device_driver.static]\ndevices = [{ id = "led0", type = "led" }]'
    site.executor.script = lambda launch: RUNS_ON
    async with site.agent(section):
        await site.master.send(a_launch(resources=Resources(devices={"led0": 1})))
        await site.master.reached(TaskState.RUNNING)
    site.executor = FakeExecutor(survivors={(TaskId(1), 1, 0): None})
    async with site.agent(section):
        await site.executor.until(lambda: bool(site.executor.running))
    assert fences == [Fence(1, 0), Fence(1, 0)]


# --- logs ---------------------------------------------------------------------------------------


def log_text(master: Master, request_id: int) -> bytes:
    return b"".join(piece.data for piece in master.all(LogData) if piece.request_id == request_id)


async def log_end(master: Master, request_id: int) -> LogData:
    def ends() -> list[LogData]:
        return [m for m in master.all(LogData) if m.request_id == request_id and m.end]

    await master.until(ends)
    return ends()[0]


async def test_a_log_can_be_read_followed_and_its_tail_asked_for(site: Site) -> None:
    site.executor.script = lambda launch: RUNS_ON
    async with site.agent():
        await site.master.send(a_launch())
        await site.master.reached(TaskState.RUNNING)
        writer = LogWriter(site.executor.sandboxes[TaskId(1), 1, 0].log_dir, STDOUT, 1 << 20)
        writer.write(b"one\n")
        await site.master.send(
            LogGet(1, TaskId(1), LogStream.STDOUT, follow=True),
            LogGet(2, TaskId(1), LogStream.STDOUT),
            LogGet(3, TaskId(1), LogStream.STDOUT, offset=-2),
        )
        await log_end(site.master, 2)
        await log_end(site.master, 3)
        assert (log_text(site.master, 2), log_text(site.master, 3)) == (b"one\n", b"e\n")
        writer.write(b"two\n")
        await site.master.until(lambda: log_text(site.master, 1) == b"one\ntwo\n")
        writer.write(b"three\n")
        writer.close()
        site.executor.exit(1)
        await log_end(site.master, 1)
        assert log_text(site.master, 1) == b"one\ntwo\nthree\n"
        await site.master.ended()
        await site.master.send(LogGet(4, TaskId(1), LogStream.STDOUT))
        await log_end(site.master, 4)
        assert log_text(site.master, 4) == b"one\ntwo\nthree\n", "kept after the end"


async def test_a_log_that_is_not_there_is_answered_with_the_problem(site: Site) -> None:
    async with site.agent():
        await site.master.send(LogGet(1, TaskId(9), LogStream.STDERR))
        assert "t9" in (await log_end(site.master, 1)).problem


async def test_a_cancelled_log_frees_its_place_among_the_bounded_streams(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgerm_core.agent import logs_service

    monkeypatch.setattr(logs_service, "MAX_LOG_STREAMS", 1)
    site.executor.script = lambda launch: RUNS_ON
    async with site.agent():
        await site.master.send(a_launch())
        await site.master.reached(TaskState.RUNNING)
        _ = site.executor.sandboxes[TaskId(1), 1, 0].log_dir
        get = LogGet(1, TaskId(1), LogStream.STDOUT, follow=True)
        await site.master.send(get, LogGet(2, TaskId(1), LogStream.STDOUT))
        assert "already" in (await log_end(site.master, 2)).problem
        await site.master.send(LogGet(1, TaskId(1), LogStream.STDOUT, cancel=True))
        with anyio.fail_after(PATIENCE_S):
            for request_id in itertools.count(3):
                await site.master.send(LogGet(request_id, TaskId(1), LogStream.STDOUT))
                if not (await log_end(site.master, request_id)).problem:
                    break
