"""What goes wrong at a site, and that each has its outcome and its sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgerm_core.client import process, task
from edgerm_core.codec import encode_batch
from edgerm_core.config import Config
from edgerm_core.frameworks import FrameworkInfo
from edgerm_core.ids import FrameworkId
from edgerm_core.messages import Submit, Subscribe
from edgerm_core.plugins import load_plugins
from edgerm_core.tasks import TaskState
from edgerm_core.testing.masters import VERSIONS, spec

from .clusters import PATIENCE_S, Cluster, free_port

SMALL = "cpus:0.2;mem:32"

RESPONSIVE_S = 15.0
"""A person's patience with a listing, on a slow machine that is busy with other things."""


# --- starting ---------------------------------------------------------------------------------------


def refusal(cluster: Cluster, name: str) -> str:
    """Wait until a daemon has given up and return its last line."""
    code = cluster.ended(name)
    log = cluster.log(name)
    assert code in (1, 2, 3), f"exit code {code}\n{log}"
    assert "Traceback" not in log, log
    return log.strip().splitlines()[-1]


def test_two_masters_on_one_data_directory(cluster: Cluster) -> None:
    cluster.start_master()
    cluster.launch_master("master-2", cluster.directory / "master", f"ws://127.0.0.1:{free_port()}")
    line = refusal(cluster, "master-2")
    assert line.startswith("edgerm: data directory")
    assert f"is owned by another master (process {cluster.processes['master'].pid}): stop it" in line
    assert cluster.rows("cluster"), "the first one goes on"


def test_a_port_that_is_taken(cluster: Cluster) -> None:
    cluster.start_master()
    cluster.launch_master("master-2", cluster.directory / "other", cluster.url)
    line = refusal(cluster, "master-2")
    assert str(cluster.port) in line
    assert "in use" in line


@pytest.mark.parametrize("where", ["file", "below a file", "/proc/edgerm"])
def test_a_data_directory_that_cannot_be_used(cluster: Cluster, where: str, tmp_path: Path) -> None:
    tmp_path.joinpath("file").write_text("")
    place = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "x"}.get(where, Path(where))
    cluster.launch_master("master", place, cluster.url)
    line = refusal(cluster, "master")
    assert line.startswith(f"edgerm: data directory {place} cannot be used")
    result = cluster.edgerm("agent", "--data-dir", str(place))
    assert result.code in (1, 2), result
    assert str(place) in result.err
    assert "Traceback" not in result.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four mebibytes."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.root
def test_a_full_disk_stops_answers_until_there_is_room(small_disk: Path, cluster: Cluster) -> None:
    cluster.start_master(data_dir=small_disk / "master")
    cluster.start_agent("a", executors=("process",))
    framework = cluster.framework("f")
    assert framework.submit(process("true"), resources=SMALL).wait(PATIENCE_S).state is TaskState.FINISHED
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 4096)
            except OSError:
                break
    answers: list[int] = []

    def submit() -> None:
        for _ in range(40):  # The log of the database has some pages to spare.
            draft = task(process("true"), resources=SMALL, env={"PAD": "x" * 30_000})
            answers.append(framework.submit_many([draft])[0].id)

    submitting = threading.Thread(target=submit)
    submitting.start()
    try:
        cluster.wait("the master says so", lambda: "is the disk full or read-only" in cluster.log("master"))
        count = len(answers)
        time.sleep(1.5)  # Nothing can be awaited for what must not happen.
        assert len(answers) == count, "answered although nothing could be written"
        assert "nothing is sent until it can be written" in cluster.log("master")
    finally:
        filler.unlink()
        submitting.join(PATIENCE_S)
    assert not submitting.is_alive()
    assert len(answers) == 40
    cluster.wait("all tasks end", lambda: len(cluster.rows("tasks", states=["FINISHED"])) == 41)


# --- a master that is not there ---------------------------------------------------------------------


def test_commands_say_that_nobody_listens(cluster: Cluster) -> None:
    began = time.monotonic()
    result = cluster.edgerm("ps")
    assert result.code == 3, result
    assert f"{cluster.url} refused the connection: nobody listens there; is the master running?" in result.err
    assert time.monotonic() - began < RESPONSIVE_S


def test_an_agent_waits_for_its_master(cluster: Cluster) -> None:
    cluster.start_agent("a", executors=("process",), ready=False)
    cluster.wait(
        "it has tried several times", lambda: cluster.log("a").count("dialling again") >= 3
    )
    assert "nobody listens there; is the master running?" in cluster.log("a")
    cluster.start_master()
    cluster.wait_ready("a")


def test_a_copied_data_directory_is_found_out_and_one_agent_goes_on(cluster: Cluster) -> None:
    cluster.start_master()
    cluster.start_agent("a", executors=("process",))
    shutil.copytree(cluster.directory / "a", cluster.directory / "copy", ignore=shutil.ignore_patterns("*.sock"))
    cluster.start_agent("copy", executors=("process",), ready=False)

    def ended() -> list[str]:
        return [name for name in ("a", "copy") if cluster.processes[name].poll() is not None]

    (loser,) = cluster.wait("one of them gives up", ended)
    line = refusal(cluster, loser)
    assert "data directory" in line
    assert "cop" in line
    (row,) = cluster.wait(
        "the other one is ready", lambda: [r for r in cluster.rows("agents") if r["connected"]]
    )
    assert row["state"] == "READY"
    other = {"a": "copy", "copy": "a"}[loser]
    assert cluster.processes[other].poll() is None
    done = cluster.framework("f").submit(process("true"), resources=SMALL).wait(PATIENCE_S)
    assert done.state is TaskState.FINISHED


# --- too much ---------------------------------------------------------------------------------------


def test_a_flooding_framework_is_served_beside_the_others(cluster: Cluster) -> None:
    cluster.start_master()
    cluster.start_agent("a", executors=("process",))
    stop = threading.Event()
    sent = 0

    def flood() -> None:
        import anyio

        async def run() -> None:
            nonlocal sent
            connection = await load_plugins(Config()).transport_for(cluster.url).connect(cluster.url)
            await connection.send(
                encode_batch([Subscribe(VERSIONS, FrameworkInfo(FrameworkId("flood"), "flood"))])
            )

            async def read() -> None:
                while True:
                    await connection.receive()

            async with anyio.create_task_group() as group:
                group.start_soon(read)
                while not stop.is_set():
                    number = sent
                    frame = encode_batch(
                        Submit(number + n, (f"k{number + n}",), (spec(resources="cpus:99"),)) for n in range(50)
                    )
                    await connection.send(frame)
                    sent += 50
                group.cancel_scope.cancel()
            await connection.close()

        anyio.run(run)

    flooder = threading.Thread(target=flood)
    flooder.start()
    try:
        cluster.wait("the flood is under way", lambda: sent > 500)
        framework = cluster.framework("quiet")
        for _ in range(3):
            began = time.monotonic()
            end = framework.submit(process("true"), resources=SMALL).wait(PATIENCE_S)
            assert end.state is TaskState.FINISHED
            assert time.monotonic() - began < RESPONSIVE_S
    finally:
        stop.set()
        flooder.join(PATIENCE_S)
    assert not flooder.is_alive()


def test_more_tasks_than_one_submission_takes_are_refused_with_the_limit(cluster: Cluster) -> None:
    cluster.start_master()
    result = cluster.edgerm("run", "--count", "10001", "--process", "--", "true")
    assert result.code == 2, result
    assert "instances must be 1 to 10000, not 10001" in result.err
    assert cluster.rows("tasks") == []


def test_a_task_that_can_never_fit_is_explained_at_once(cluster: Cluster) -> None:
    cluster.start_master()
    cluster.start_agent("a", "cpus:1;mem:64", executors=("process",))
    submitted = cluster.framework("f").submit(process("true"), resources="cpus:64;mem:32")
    result = cluster.edgerm("explain", f"t{submitted.id}")
    assert result.code == 0, result
    assert f"t{submitted.id} is PENDING: can never run on any of the 1 agent registered now" in result.out
    assert "cpus" in result.out
    assert "kill it and submit it with other demands" in result.out


def test_ten_thousand_pending_tasks_leave_everything_responsive(cluster: Cluster) -> None:
    cluster.start_master()
    cluster.start_agent("a", executors=("process",))
    framework = cluster.framework("many")
    began = time.monotonic()
    tasks = framework.submit_many([task(process("true"), resources="cpus:50", instances=10_000)])
    assert len(tasks) == 10_000
    assert time.monotonic() - began < PATIENCE_S
    for arguments, expected in (
        (("ps", "--limit", "10000", "--json"), f'"t{tasks[-1].id}"'),
        (("explain", f"t{tasks[5000].id}"), "can never run on any"),
        (("frameworks",), "10000"),
    ):
        began = time.monotonic()
        result = cluster.edgerm(*arguments)
        assert expected in result.out, result
        assert time.monotonic() - began < RESPONSIVE_S, arguments
    began = time.monotonic()
    done = cluster.framework("one").submit(process("true"), resources=SMALL).wait(PATIENCE_S)
    assert done.state is TaskState.FINISHED
    assert time.monotonic() - began < RESPONSIVE_S
    framework.teardown()
    cluster.wait("they are gone", lambda: len(cluster.rows("tasks")) == 1)


def test_a_gigabyte_of_output_fills_no_disk(cluster: Cluster) -> None:
    cluster.start_master()
    cluster.start_agent("a", executors=("process",))
    script = "head -c 1G /dev/zero; echo the end"
    noisy = cluster.framework("f").submit(process("sh", "-c", script), cpus=2, mem="64MiB")
    assert noisy.wait(PATIENCE_S).state is TaskState.FINISHED
    kept = sum(path.stat().st_size for path in (cluster.directory / "a").rglob("*") if path.is_file())
    assert kept < 4 << 20
    result = cluster.edgerm("logs", f"t{noisy.id}", "--tail", "100")
    assert result.code == 0, result
    assert result.out.endswith("the end\n")
    assert len(result.out) == 100


# --- tasks that misbehave ---------------------------------------------------------------------------


def test_a_file_that_is_no_wasm_module_ends_as_an_error_with_its_cause(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_master()
    cluster.start_agent("a", executors=("wasm",))
    module = tmp_path / "notes.wasm"
    module.write_bytes(os.urandom(5000))
    result = cluster.edgerm("run", "--wasm", str(module))
    assert result.code in (1, 2), result
    assert "Traceback" not in result.err
    assert "WebAssembly" in result.err or "WASM" in result.err.upper()
    assert all(row["state"] in ("ERROR", "FAILED") for row in cluster.rows("tasks"))
    cluster.wait_ready("a")


@pytest.mark.root
def test_a_fork_bomb_and_a_memory_hog_end_while_their_neighbour_finishes(cluster: Cluster) -> None:
    cluster.start_master()
    cluster.start_agent("a", executors=("process",))
    framework = cluster.framework("f")
    bomb = framework.submit(
        process("bash", "-c", "bomb() { bomb | bomb & }; bomb; sleep 60"), resources=SMALL, name="bomb", time_limit_s=4
    )
    hog = framework.submit(
        process("python3", "-c", "kept = []\nwhile True: kept.append(bytearray(1 << 20))"),
        resources="cpus:0.5;mem:48",
        name="hog",
    )
    neighbour = framework.submit(
        process("sh", "-c", "for i in 1 2 3; do sleep 0.3; echo $i; done"), resources=SMALL, name="neighbour"
    )
    done = neighbour.wait(PATIENCE_S)
    assert (done.state, done.exit_code) == (TaskState.FINISHED, 0)
    hogged = hog.wait(PATIENCE_S)
    assert (hogged.state, hogged.reason) == (TaskState.FAILED, "out-of-memory")
    bombed = bomb.wait(PATIENCE_S)
    assert bombed.state is TaskState.FAILED
    assert bombed.reason in ("time-limit", "pid-limit")
    (row,) = cluster.rows("agents")
    assert (row["state"], row["connected"], row["tasks"]) == ("READY", True, 0)
    assert row["free"] == row["totals"]
    cluster.wait("nothing of the bomb is left", lambda: not [p for p in cluster.leftovers() if "bomb" in p[1]])
