"""What a task gets, what it does not get, and why it cannot start: over real engines."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgerm_core.interfaces import TaskHandle
from edgerm_core.logs import STDERR
from edgerm_core.tasks import Volume
from edgerm_core.testing.contracts.executor import PATIENCE_S, until
from edgerm_core.testing.processes import free_port
from edgerm_core.testing.sandboxes import DirectorySandbox

from .engine import IMAGE_WITHOUT_COMMAND, Engine
from .runner import Runner
from .workloads import launch, living, shell

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["engine", "podman"])
def any_engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def runner(any_engine: Engine, tmp_path: Path) -> AsyncIterator[Runner]:
    made = Runner(any_engine.url, tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def docker(engine: Engine, tmp_path: Path) -> AsyncIterator[Runner]:
    """For what has nothing to do with which engine it is."""
    made = Runner(engine.url, tmp_path)
    yield made
    await made.close()


# --- what cannot start ----------------------------------------------------------------------------


async def test_image_without_a_command_fails_its_task_only(runner: Runner) -> None:
    neighbour = await runner.start(launch("sleep", 600))
    sentence = await runner.refused(launch(image=IMAGE_WITHOUT_COMMAND))
    assert "command" in sentence
    assert "give args" in sentence
    with anyio.move_on_after(0.2) as scope:
        await runner.executor.wait(neighbour)
    assert scope.cancelled_caught
    assert await runner.says("echo fine") == "fine"


async def test_image_that_is_not_here_and_not_to_be_pulled_is_named(runner: Runner) -> None:
    sentence = await runner.refused(launch("true", image="127.0.0.1:1/no/such:image", pull="never"))
    assert "127.0.0.1:1/no/such:image" in sentence
    assert "not on this machine" in sentence


async def test_user_that_is_not_in_the_image_is_named(runner: Runner) -> None:
    assert "nosuchuser" in await runner.refused(launch("true", user="nosuchuser"))


async def test_command_that_is_not_in_the_image_is_named(runner: Runner) -> None:
    sentence = await runner.refused(launch("no-such-command", init=False))
    assert "no-such-command" in sentence
    assert "not in the image" in sentence


async def test_command_that_an_init_does_not_find_is_explained(docker: Runner) -> None:
    run = launch("no-such-command")
    result = await docker.to_end(run)
    assert result.exit_code == 127
    assert "not found in the image" in result.message
    assert "no-such-command" in docker.printed(run, STDERR)


async def test_name_taken_by_somebody_else_is_told_and_left_alone(
    any_engine: Engine, runner: Runner
) -> None:
    run = launch("true")
    await runner.to_end(launch("true"))
    name = f"edgerm-{runner.executor._read_identity()[:8]}-t{run.task_id}.1.0"
    stranger = any_engine.run(name, "sleep", "600")
    try:
        sentence = await runner.refused(run)
        assert name in sentence
        assert any_engine.inspect(stranger)["State"]["Running"]
    finally:
        any_engine.call("DELETE", f"/containers/{stranger}", force="true")


async def test_what_an_earlier_try_of_the_same_run_left_is_replaced(runner: Runner) -> None:
    run = shell("echo first; sleep 600")
    first = await runner.start(run)
    second = await runner.start(run)
    assert first != second
    assert len(living(run)) <= 3


async def test_host_port_that_another_program_has_is_told(runner: Runner) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sentence = await runner.refused(
            launch("sleep", 600, resources=f"ports:[{port}-{port}]", ports={"80": 0})
        )
    assert str(port) in sentence or "address already in use" in sentence


async def test_cancelled_pull_leaves_nothing(docker: Runner) -> None:
    with anyio.move_on_after(0.3) as scope:
        await docker.start(launch("true", image="127.0.0.1:1/no/such:image"))
    assert scope.cancelled_caught
    assert docker.executor._watch.runs == {}
    assert docker.executor._watch.starting == set()


# --- what a task gets -----------------------------------------------------------------------------


async def test_standard_error_is_kept_apart(runner: Runner) -> None:
    run = shell("echo out; echo err >&2")
    assert (await runner.to_end(run)).ok
    assert runner.printed(run) == "out"
    assert runner.printed(run, STDERR) == "err"


async def test_default_command_entrypoint_and_working_directory(runner: Runner) -> None:
    run = launch()
    assert (await runner.to_end(run)).ok
    assert runner.printed(run) == "hello from the image"
    run = launch("pwd", entrypoint=["sh", "-c"], working_dir="/tmp")
    assert (await runner.to_end(run)).ok
    assert runner.printed(run) == "/tmp"


async def test_files_of_the_task_are_in_its_work_directory(runner: Runner) -> None:
    run = shell("cat /edgerm/work/data.txt; echo more > /edgerm/work/new.txt")
    work_dir = runner.sandbox(run).work_dir
    (work_dir / "data.txt").write_text("some data")
    assert (await runner.to_end(run)).ok
    assert runner.printed(run) == "some data"
    assert (work_dir / "new.txt").read_text() == "more\n"


async def test_plain_user_can_write_volume_and_result(runner: Runner, tmp_path: Path) -> None:
    place = tmp_path / "volume"
    place.mkdir()
    run = shell(
        "id -u; echo x > /data/x; echo 42 > $EDGERM_RESULT_FILE",
        user="65534",
        volumes=((Volume("/data"), place),),
    )
    result = await runner.to_end(run)
    assert result.ok, (result, runner.printed(run, STDERR))
    assert result.result == b"42\n"
    assert runner.printed(run) == "65534"
    assert (place / "x").stat().st_uid == 65534


async def test_read_only_volume_and_module_cannot_be_written(runner: Runner, tmp_path: Path) -> None:
    place = tmp_path / "volume"
    place.mkdir()
    (place / "there").write_text("before")
    module = tmp_path / "module"
    module.write_text("the module")
    run = shell(
        "cat /data/there /edgerm/module; echo > /data/there || echo > /edgerm/module || echo refused",
        volumes=((Volume("/data", read_only=True), place),),
        blob_path=module,
    )
    assert (await runner.to_end(run)).ok
    assert runner.printed(run).startswith("beforethe module")
    assert runner.printed(run).endswith("refused")
    assert (place / "there").read_text() == "before"


async def test_result_that_is_a_link_or_too_large_is_not_taken(docker: Runner) -> None:
    result = await docker.to_end(shell("ln -s /etc/passwd $EDGERM_RESULT_FILE"))
    assert result.ok
    assert result.result is None
    assert "result" in result.message
    result = await docker.to_end(shell("head -c 100000 /dev/zero > $EDGERM_RESULT_FILE"))
    assert result.result is None
    assert "larger than" in result.message


async def test_task_has_no_capability_and_cannot_get_one(runner: Runner) -> None:
    said = await runner.says("grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status")
    facts = dict(line.replace("\t", "").split(":") for line in said.splitlines())
    assert int(facts["CapEff"], 16) == 0
    assert int(facts["CapBnd"], 16) == 0
    assert facts["NoNewPrivs"] == "1"


async def test_capability_that_the_operator_allows_is_there(runner: Runner) -> None:
    await runner.close()
    runner.configure(allow_capabilities=("NET_BIND_SERVICE",))
    said = await runner.says("grep CapEff /proc/self/status", cap_add=["NET_BIND_SERVICE"])
    assert int(said.split()[1], 16) == 1 << 10


async def test_no_network_unless_asked_for(runner: Runner) -> None:
    assert await runner.says("ls /sys/class/net") in ("lo", "lo\nsit0")
    assert "eth0" in await runner.says("ls /sys/class/net", network="bridge")


async def test_port_of_the_container_is_at_the_granted_port(runner: Runner) -> None:
    port = free_port()
    run = shell(
        "echo ready; while :; do echo good day | nc -l -p 8080; done",
        resources=f"ports:[{port}-{port}]",
        ports={"8080": 0},
    )
    await runner.start(run)
    await until(lambda: runner.printed(run) == "ready", "it is not ready")

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.settimeout(10)
            return connection.recv(100)

    with anyio.fail_after(PATIENCE_S):
        while not (answer := await _quietly(ask)):  # noqa: ASYNC110
            await anyio.sleep(0.05)
    assert answer == b"good day\n"


async def _quietly(ask: Any) -> bytes:
    try:
        found: bytes = await anyio.to_thread.run_sync(ask)
        return found
    except OSError:
        return b""


async def test_port_that_was_not_granted_is_refused(docker: Runner) -> None:
    sentence = await docker.refused(launch("true", ports={"80": 1}, resources="ports:[31000-31000]"))
    assert "granted port number 1" in sentence


async def test_granted_device_is_there_and_no_other(runner: Runner) -> None:
    node = Path("/dev/kmsg")
    look = "test -c /dev/kmsg && echo there || echo absent"
    assert await runner.says(look) == "absent"
    run = shell(look, device_nodes=(str(node),))
    assert (await runner.to_end(run)).ok
    assert runner.printed(run) == "there"
    assert "allow_devices" in await runner.refused(shell(look, devices=["/dev/kmsg"]))


async def test_mount_that_the_operator_allows_is_there_and_its_links_lead_nowhere(
    runner: Runner, tmp_path: Path
) -> None:
    allowed = tmp_path / "allowed"
    (allowed / "inner").mkdir(parents=True)
    (allowed / "inner" / "file").write_text("seen")
    (allowed / "trick").symlink_to("/etc")
    await runner.close()
    runner.configure(allow_mounts=(str(allowed),))
    mount = {"host": str(allowed / "inner"), "path": "/data"}
    assert await runner.says("cat /data/file; echo > /data/file || true", mounts=[mount]) == "seen"
    assert (allowed / "inner" / "file").read_text() == "seen"
    for host in (str(allowed / "trick"), str(allowed / ".." / "secret"), "/etc"):
        sentence = await runner.refused(launch("true", mounts=[{"host": host, "path": "/data"}]))
        assert "allow_mounts" in sentence
    absent = {"host": str(allowed / "absent"), "path": "/data"}
    assert "there is no" in await runner.refused(launch("true", mounts=[absent]))


async def test_labels_and_process_one(engine: Engine, docker: Runner) -> None:
    handle = await docker.start(launch("sleep", 600, labels={"room": "cellar"}))
    labels = engine.inspect(handle.data["container"])["Config"]["Labels"]
    assert labels["room"] == "cellar"
    assert labels["edgerm.task"].startswith("t")
    assert len(labels["edgerm.agent"]) == 16
    assert "init" in await docker.says("cat /proc/1/cmdline")
    assert "init" not in await docker.says("cat /proc/1/cmdline", init=False)


# --- limits ---------------------------------------------------------------------------------------


def group_of(runner: Runner, engine: Engine, handle: TaskHandle, controller: str) -> Path:
    pid = engine.inspect(handle.data["container"])["State"]["Pid"]
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path("/sys/fs/cgroup") / controller / path.lstrip("/")
    raise AssertionError(f"no group of {controller}")


@pytest.mark.root
async def test_busy_loop_gets_the_share_it_was_granted(any_engine: Engine, runner: Runner) -> None:
    handle = await runner.start(shell("while :; do :; done", resources="cpus:0.2"))
    cpu = group_of(runner, any_engine, handle, "cpu")
    usage = group_of(runner, any_engine, handle, "cpuacct") / "cpuacct.usage"

    def counters() -> dict[str, int]:
        lines = (cpu / "cpu.stat").read_text().splitlines()
        return {name: int(value) for name, value in (line.split() for line in lines)}

    before, used = counters(), int(usage.read_text())
    with anyio.fail_after(PATIENCE_S):
        # A busy machine may not even give it its share, and then has nothing to hold back.
        while True:
            # In this order: what it uses between the two looks must not be counted without its periods.
            until_now, now = int(usage.read_text()), counters()
            if now["nr_throttled"] >= before["nr_throttled"] + 5:
                break
            await anyio.sleep(0.05)
    used = until_now - used
    periods = now["nr_periods"] - before["nr_periods"]
    # 20 ms in each period of 100 ms, and what runs over before the kernel notices.
    assert used <= (periods + 2) * 30_000_000
    assert (cpu / "cpu.cfs_quota_us").read_text().strip() == "20000"
    assert (cpu / "cpu.shares").read_text().strip() == "204"


async def test_fork_bomb_ends_at_its_limit(runner: Runner) -> None:
    run = shell("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 600 & echo $i; done", pids_limit=8)
    result = await runner.to_end(run)
    assert not result.ok
    assert "fork" in runner.printed(run, STDERR)
    assert len(runner.printed(run).splitlines()) < 8
    assert not living(run)


async def test_processes_are_limited_by_default(engine: Engine, docker: Runner) -> None:
    handle = await docker.start(launch("sleep", 600, resources="mem:64"))
    config = engine.inspect(handle.data["container"])["HostConfig"]
    assert config["PidsLimit"] == 512
    assert config["Memory"] == config["MemorySwap"] == 64 << 20
    assert config["Privileged"] is False
    assert config["LogConfig"] == {
        "Type": "local",
        "Config": {"max-size": str(1 << 20), "max-file": "2", "compress": "false"},
    }


async def test_root_file_system_can_be_read_only_with_room_in_memory(runner: Runner) -> None:
    said = await runner.says(
        "echo > /file || echo refused; head -c 4000000 /dev/zero > /scratch/a || echo full",
        read_only=True,
        tmpfs={"/scratch": 2},
    )
    assert said == "refused\nfull"


async def test_ulimits_and_shared_memory(runner: Runner) -> None:
    said = await runner.says(
        "ulimit -n; df -k /dev/shm | tail -1", ulimits={"nofile": [64, 128], "nproc": 512}, shm_mib=3
    )
    assert said.splitlines()[0] == "64"
    assert "3072" in said


async def test_file_beyond_its_ulimit_is_not_written(runner: Runner) -> None:
    limits = {"fsize": 4096, "nofile": 64, "nproc": 512}  # Podman raises those that are not given.
    run = shell("head -c 100000 /dev/zero > /tmp/file; wc -c < /tmp/file", ulimits=limits)
    await runner.to_end(run)
    assert runner.printed(run) == "4096"


async def test_engines_own_log_is_bounded_under_a_flood(engine: Engine, docker: Runner) -> None:
    run = shell("yes 0123456789abcdef | head -c 5000000")
    sandbox = DirectorySandbox(docker.base / "flood", 65_536)
    handle = await docker.executor.start(run, sandbox)
    docker.handles.append(handle)
    with anyio.fail_after(PATIENCE_S):
        assert (await docker.executor.wait(handle)).ok
    container = str(handle.data["container"])
    root = Path(engine.call("GET", "/info")["DockerRootDir"])
    # Not what dockerd writes anew at this moment, such as the container's state.
    files = list((root / "containers" / container / "local-logs").iterdir())
    assert files
    assert sum(path.stat().st_size for path in files) < 4 * 65_536


async def test_disk_limit_is_claimed_only_where_the_storage_can(runner: Runner) -> None:
    fingerprint = await runner.executor.fingerprint()
    assert fingerprint.capabilities["disk_limit"] is False
    assert await runner.says("echo runs all the same", resources="disk:64") == "runs all the same"
