"""What becomes of runs when engines, agents and other people come and go."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest
from edgerm_executor_docker import watch as watch_module
from edgerm_executor_docker.streams import EngineGone

from edgerm_core.errors import ExecutorError, TaskLost
from edgerm_core.interfaces import TaskHandle
from edgerm_core.tasks import Reason
from edgerm_core.testing.contracts.executor import PATIENCE_S, until

from .agents import TICKS, Agents
from .engine import READY_S, DockerEngine, Engine, PodmanEngine
from .workloads import launch, living, shell

pytestmark = pytest.mark.anyio

NewEngine = Callable[..., DockerEngine]


@pytest.fixture(params=["engine", "podman"])
def any_engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def agents(tmp_path: Path) -> AsyncIterator[Agents]:
    made = Agents(tmp_path)
    yield made
    await made.close()


def container_of(handle: TaskHandle) -> str:
    return str(handle.data["container"])


# --- engines that are restarted -----------------------------------------------------------------


async def test_engine_restart_with_live_restore_goes_unnoticed_by_the_task(
    new_engine: NewEngine, agents: Agents
) -> None:
    engine = new_engine(live_restore=True)
    executor = agents.agent(engine.url)
    run = shell(TICKS + " & trap 'exit 7' TERM; wait")
    handle = await agents.start(executor, run)
    await until(lambda: len(agents.ticks(run)) > 3, "it never printed")
    await anyio.to_thread.run_sync(engine.restart)
    before = len(agents.ticks(run))
    await until(lambda: len(agents.ticks(run)) > before + 20, "its output is not read again")
    with anyio.fail_after(PATIENCE_S):
        await executor.stop(handle, 10.0)
        result = await executor.wait(handle)
    assert result.exit_code == 7
    seen = agents.ticks(run)
    assert seen == list(range(1, len(seen) + 1)), "output was lost or doubled over the restart"
    assert (await executor.fingerprint()).healthy


async def test_run_that_ends_while_a_live_restoring_engine_is_away_keeps_its_exit_code(
    new_engine: NewEngine, agents: Agents
) -> None:
    engine = new_engine(live_restore=True)
    executor = agents.agent(engine.url)
    run = shell("while [ ! -e /edgerm/work/go ]; do sleep 0.05; done; exit 5")
    handle = await agents.start(executor, run)
    await anyio.to_thread.run_sync(engine.stop)
    (agents.sandbox(run).work_dir / "go").touch()
    await until(lambda: not living(run), "it does not end")
    await anyio.to_thread.run_sync(engine.start)
    with anyio.fail_after(PATIENCE_S):
        result = await executor.wait(handle)
    assert result.exit_code == 5


async def test_engine_restart_behind_a_socket_that_stays_is_a_loss_too(
    new_engine: NewEngine, agents: Agents
) -> None:
    engine = new_engine(activated=True)
    executor = agents.agent(engine.url)
    handles = [
        await agents.start(executor, shell(f"trap 'exit {code}' TERM; sleep 600 & wait")) for code in (0, 3)
    ]
    await anyio.to_thread.run_sync(engine.restart)
    for handle in handles:
        with anyio.fail_after(PATIENCE_S):
            result = await executor.wait(handle)
        assert result.reason == Reason.EXECUTOR_UNAVAILABLE, result
        assert "the engine was restarted" in result.message


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_engine_restart_without_live_restore_is_a_loss_and_not_the_tasks_fault(
    new_engine: NewEngine, agents: Agents, how: str
) -> None:
    engine = new_engine()
    executor = agents.agent(engine.url)
    await executor.sweep([])
    deaf = await agents.start(executor, launch("sleep", 600))
    polite = await agents.start(executor, shell("trap 'exit 0' TERM; sleep 600 & wait"))
    await anyio.to_thread.run_sync(getattr(engine, how))
    fingerprint = await executor.fingerprint()
    assert not fingerprint.healthy
    assert engine.url.removeprefix("unix://") in fingerprint.problem
    with pytest.raises(ExecutorError) as caught:
        await agents.start(executor, launch("true"))
    assert caught.value.reason == Reason.EXECUTOR_UNAVAILABLE
    assert caught.value.recoverable
    await anyio.to_thread.run_sync(engine.start)
    for handle in (deaf, polite):
        with anyio.fail_after(PATIENCE_S):
            result = await executor.wait(handle)
        assert result.reason == Reason.EXECUTOR_UNAVAILABLE, result
        assert "the engine was restarted" in result.message
        await executor.destroy(handle)
    assert engine.containers() == []
    assert (await executor.fingerprint()).healthy
    again = await agents.start(executor, launch("true"))
    with anyio.fail_after(PATIENCE_S):
        assert (await executor.wait(again)).ok


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("how", ["stop", "kill", "crash"])
async def test_run_that_an_engine_ended_with_itself_while_the_agent_was_away_is_a_loss(
    new_engine: NewEngine, agents: Agents, how: str, activated: bool
) -> None:
    engine = new_engine(activated=activated)
    executor = agents.agent(engine.url)
    ended = await agents.start(executor, shell("exit 4"))
    with anyio.fail_after(PATIENCE_S):
        assert (await executor.wait(ended)).exit_code == 4
    going = await agents.start(executor, launch("sleep", 600))
    await executor.close()
    await anyio.to_thread.run_sync(getattr(engine, how))
    await anyio.to_thread.run_sync(engine.start)
    executor = agents.agent(engine.url)
    for handle in (ended, going):
        await executor.recover(handle)
    with anyio.fail_after(PATIENCE_S):
        assert (await executor.wait(ended)).exit_code == 4
        result = await executor.wait(going)
    assert result.reason == Reason.EXECUTOR_UNAVAILABLE
    assert "was restarted" in result.message


async def test_run_that_ended_with_its_machine_is_a_loss_with_live_restore_too(
    new_engine: NewEngine, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine(live_restore=True)
    executor = agents.agent(engine.url)
    handle = await agents.start(executor, launch("sleep", 600))
    await executor.close()
    await anyio.to_thread.run_sync(engine.crash)
    monkeypatch.setattr(watch_module, "boot_id", lambda: "the next boot")
    await anyio.to_thread.run_sync(engine.start)
    executor = agents.agent(engine.url)
    await executor.recover(handle)
    with anyio.fail_after(PATIENCE_S):
        result = await executor.wait(handle)
    assert result.reason == Reason.EXECUTOR_UNAVAILABLE
    assert "the machine was restarted" in result.message


async def test_own_end_while_only_the_connection_broke_is_the_tasks(
    engine: DockerEngine, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = agents.agent(engine.url)
    run = shell("while [ ! -e /edgerm/work/go ]; do sleep 0.05; done; exit 5")
    handle = await agents.start(executor, run)
    away = anyio.Event()
    back = anyio.Event()

    async def probe() -> None:
        away.set()
        await back.wait()

    with monkeypatch.context() as patched:
        patched.setattr(executor._engine, "probe", probe)

        def broken(_: object) -> None:
            raise EngineGone("the connection broke")

        patched.setattr(watch_module, "read_event", broken)
        bystander = engine.run("bystander", "true", labels={"edgerm.agent": executor._read_identity()})
        with anyio.fail_after(PATIENCE_S):
            await away.wait()
    engine.remove(bystander)
    (agents.sandbox(run).work_dir / "go").touch()

    def ended() -> bool:
        return bool(engine.inspect(container_of(handle))["State"]["Status"] == "exited")

    await until(ended, "it does not end")
    back.set()
    with anyio.fail_after(PATIENCE_S):
        assert (await executor.wait(handle)).exit_code == 5


async def test_podmans_service_may_be_restarted_under_its_containers(
    podman: PodmanEngine, agents: Agents
) -> None:
    executor = agents.agent(podman.url)
    run = shell(TICKS + " & trap 'exit 7' TERM; wait")
    handle = await agents.start(executor, run)
    await until(lambda: len(agents.ticks(run)) > 3, "it never printed")
    await anyio.to_thread.run_sync(podman.kill)
    try:
        assert not (await executor.fingerprint()).healthy
    finally:
        await anyio.to_thread.run_sync(podman.start)
    before = len(agents.ticks(run))
    await until(lambda: len(agents.ticks(run)) > before + 5, "its output is not read again")
    with anyio.fail_after(PATIENCE_S):
        await executor.stop(handle, 10.0)
        assert (await executor.wait(handle)).exit_code == 7


async def test_runs_of_an_engine_that_stays_away_are_lost_after_a_named_time_and_removed_later(
    new_engine: NewEngine, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "LAST_RETRY_S", 0.3)
    engine = new_engine(live_restore=True)
    executor = agents.agent(engine.url, engine_patience_s=1.0)
    await executor.sweep([])
    run = launch("sleep", 600)
    handle = await agents.start(executor, run)
    await anyio.to_thread.run_sync(engine.stop)
    with anyio.fail_after(PATIENCE_S):
        result = await executor.wait(handle)
    assert result.reason == Reason.EXECUTOR_UNAVAILABLE
    assert "gone for 1 s" in result.message
    with anyio.fail_after(PATIENCE_S):
        await executor.destroy(handle)
    assert living(run), "nobody could have ended it"
    await anyio.to_thread.run_sync(engine.start)
    await until(lambda: engine.containers() == [], "it is not removed after the engine's return")
    assert not living(run)


async def test_stop_waits_for_an_engine_that_is_away(new_engine: NewEngine, agents: Agents) -> None:
    engine = new_engine(live_restore=True)
    executor = agents.agent(engine.url)
    handle = await agents.start(executor, launch("sleep", 600))
    await anyio.to_thread.run_sync(engine.stop)
    with anyio.fail_after(PATIENCE_S + READY_S):
        async with anyio.create_task_group() as group:
            group.start_soon(executor.stop, handle, 0.5)
            await anyio.sleep(1.0)
            await anyio.to_thread.run_sync(engine.start)
        assert not (await executor.wait(handle)).ok


async def test_engine_that_comes_after_the_agent_is_taken_up(new_engine: NewEngine, agents: Agents) -> None:
    engine = new_engine()
    await anyio.to_thread.run_sync(engine.stop)
    executor = agents.agent(engine.url)
    await executor.sweep([])
    assert not (await executor.fingerprint()).healthy
    with pytest.raises(ExecutorError):
        await agents.start(executor, launch("true"))
    await anyio.to_thread.run_sync(engine.start)
    assert (await executor.fingerprint()).healthy
    handle = await agents.start(executor, launch("true"))
    with anyio.fail_after(PATIENCE_S):
        assert (await executor.wait(handle)).ok


async def test_run_is_recovered_once_its_engine_is_back(new_engine: NewEngine, agents: Agents) -> None:
    engine = new_engine(live_restore=True)
    executor = agents.agent(engine.url)
    handle = await agents.start(executor, launch("sleep", 600))
    await executor.close()
    await anyio.to_thread.run_sync(engine.stop)
    executor = agents.agent(engine.url, engine_patience_s=60.0)
    with anyio.fail_after(PATIENCE_S + READY_S):
        async with anyio.create_task_group() as group:
            group.start_soon(executor.recover, handle)
            await anyio.sleep(0.5)
            await anyio.to_thread.run_sync(engine.start)
        await executor.stop(handle, 1.0)


async def test_recovery_gives_up_on_an_engine_that_stays_away(tmp_path: Path, agents: Agents) -> None:
    executor = agents.agent(f"unix://{tmp_path}/nobody.sock", engine_patience_s=1.0)
    data = {
        "container": "0" * 64,
        "name": "x",
        "log_dir": str(tmp_path),
        "log_limit_bytes": 1000,
        "stdout_base": 0,
        "stderr_base": 0,
        "result_path": "",
    }
    with pytest.raises(TaskLost, match="has not come back"), anyio.fail_after(PATIENCE_S):
        await executor.recover(TaskHandle("docker", 1, data))


# --- what belongs to whom -----------------------------------------------------------------------


async def test_sweep_removes_what_nobody_claims_and_nothing_of_others(
    any_engine: Engine, agents: Agents
) -> None:
    executor = agents.agent(any_engine.url)
    other = agents.agent(any_engine.url, "other-agent")
    claimed = await agents.start(executor, launch("sleep", 600))
    orphan_run = launch("sleep", 600)
    orphan = await agents.start(executor, orphan_run)
    others = await agents.start(other, launch("sleep", 600))
    name = str(any_engine.inspect(container_of(orphan))["Name"]).strip("/")
    similar = any_engine.run(f"{name}0", "sleep", "600", labels={"edgerm.agent": "somebody"})
    unlabelled = any_engine.run(f"{name}1", "sleep", "600")
    await executor.close()
    executor = agents.agent(any_engine.url)
    with anyio.fail_after(PATIENCE_S):
        await executor.sweep([claimed, TaskHandle("docker", 99, {"x": "nonsense"})])
        await executor.sweep([claimed])
    alive = {each["Id"] for each in any_engine.containers()}
    try:
        assert container_of(orphan) not in alive
        assert not living(orphan_run)
        assert {container_of(claimed), container_of(others), similar, unlabelled} <= alive
        await executor.recover(claimed)
    finally:
        for container in (similar, unlabelled):
            any_engine.call("DELETE", f"/containers/{container}", force="true")


async def test_container_of_an_image_that_was_made_of_a_tasks_is_left_alone(
    any_engine: Engine, agents: Agents
) -> None:
    executor = agents.agent(any_engine.url)
    handle = await agents.start(executor, launch("sleep", 600))
    image = any_engine.call(
        "POST", "/commit", {}, container=container_of(handle), repo="edgerm-test/committed", tag="1"
    )["Id"]
    with anyio.fail_after(PATIENCE_S):
        await executor.destroy(handle)
    body = {"Image": image, "Cmd": ["sleep", "600"]}
    somebodys = any_engine.call("POST", "/containers/create", body, name="somebodys")["Id"]
    any_engine.call("POST", f"/containers/{somebodys}/start")
    try:
        assert any_engine.inspect(somebodys)["Config"]["Labels"]["edgerm.agent"]
        with anyio.fail_after(PATIENCE_S):
            await executor.sweep([])
        assert any_engine.inspect(somebodys)["State"]["Running"]
    finally:
        any_engine.remove(somebodys)
        any_engine.call("DELETE", f"/images/{image}", force="true")


async def test_sweep_without_an_engine_is_done_when_it_is_back(
    new_engine: NewEngine, agents: Agents
) -> None:
    engine = new_engine(live_restore=True)
    executor = agents.agent(engine.url)
    run = launch("sleep", 600)
    await agents.start(executor, run)
    await executor.close()
    await anyio.to_thread.run_sync(engine.stop)
    executor = agents.agent(engine.url)
    with anyio.fail_after(PATIENCE_S):
        await executor.sweep([])
    assert living(run)
    await anyio.to_thread.run_sync(engine.start)
    await until(lambda: engine.containers() == [], "it is not removed")


async def test_container_that_never_started_is_lost_and_removed(engine: Engine, agents: Agents) -> None:
    executor = agents.agent(engine.url)
    handle = await agents.start(executor, launch("sleep", 600))
    labels = engine.inspect(container_of(handle))["Config"]["Labels"] | {"edgerm.restarts": "1"}
    body = {"Image": engine.inspect(container_of(handle))["Config"]["Image"], "Labels": labels}
    name = f"edgerm-{labels['edgerm.agent'][:8]}-{labels['edgerm.task']}.1.1"
    made = engine.call("POST", "/containers/create", body, name=name)["Id"]
    await executor.close()
    executor = agents.agent(engine.url)
    with pytest.raises(TaskLost, match="never started"), anyio.fail_after(PATIENCE_S):
        await executor.recover(TaskHandle("docker", 1, {**handle.data, "container": made}))
    await executor.sweep([handle])
    assert made not in {each["Id"] for each in engine.containers()}


async def test_handle_of_another_agents_container_is_refused(engine: Engine, agents: Agents) -> None:
    executor = agents.agent(engine.url)
    handle = await agents.start(executor, launch("sleep", 600))
    other = agents.agent(engine.url, "other-agent")
    with pytest.raises(TaskLost, match="another agent"), anyio.fail_after(PATIENCE_S):
        await other.recover(handle)
    with anyio.move_on_after(0.2) as scope:
        await executor.wait(handle)
    assert scope.cancelled_caught


async def test_followed_runs_cost_no_thread_each(engine: Engine, agents: Agents) -> None:
    executor = agents.agent(engine.url)
    before = set(threading.enumerate())
    with anyio.fail_after(100):
        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(agents.start, executor, launch("sleep", 600))
        async with anyio.create_task_group() as group:
            for handle in agents.handles:
                group.start_soon(executor.wait, handle)
            await anyio.sleep(0.2)
            # Others may be left of earlier tests, such as of a registry that an engine still holds on to.
            threads = [each.name for each in threading.enumerate() if each not in before]
            group.cancel_scope.cancel()
        assert len(threads) < 30, threads
