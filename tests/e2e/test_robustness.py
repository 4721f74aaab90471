"""What goes wrong in the field has an outcome that is defined and said in plain words."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import msgspec
import pytest

from edgerm_core.client import connect_framework, process, task
from edgerm_core.codec import encode, encode_batch
from edgerm_core.config import Config
from edgerm_core.errors import RequestFailed
from edgerm_core.frameworks import FrameworkInfo
from edgerm_core.ids import FrameworkId
from edgerm_core.limits import LOG_RING_BYTES, MAX_SUBMIT_TASKS
from edgerm_core.messages import (
    OLDEST_PROTOCOL_VERSION,
    PROTOCOL_VERSION,
    Reconcile,
    Submit,
    Submitted,
    Subscribe,
)
from edgerm_core.plugins import load_plugins
from edgerm_core.testing.processes import Cluster, processes_of

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

PATIENCE_S = 60.0
"""For one task, or one listing, of a master that is flooded: on a slow disk a task's steps take seconds."""

GIGABYTE_S = 150.0
"""For a gigabyte to be printed and thrown away, on a slow disk."""


def fails(cluster: Cluster, *arguments: str) -> str:
    """Run a daemon that cannot start; return its only line of error."""
    done = cluster.edgerm(*arguments, check=False)
    assert done.returncode not in (0, 70), (done.returncode, done.stderr)
    return done.stderr.strip()


# --- the master ---------------------------------------------------------------------------------


def test_two_masters_on_one_data_directory(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_master()
    sentence = fails(
        cluster, "master", "--listen", "ws://127.0.0.1:0", "--data-dir", str(tmp_path / "master")
    )
    pid = cluster.processes["master"].pid
    assert f"is owned by another master (process {pid})" in sentence


def test_port_taken(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_master()
    sentence = fails(cluster, "master", "--listen", cluster.url, "--data-dir", str(tmp_path / "other"))
    assert "already in use" in sentence


def test_data_directory_that_is_a_file(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sentence = fails(cluster, "master", "--listen", cluster.url, "--data-dir", str(tmp_path / "file"))
    assert "data directory" in sentence
    sentence = fails(cluster, "agent", "--master", cluster.url, "--data-dir", str(tmp_path / "file"))
    assert str(tmp_path / "file") in sentence


@pytest.mark.parametrize("place", ["file/below", "/proc/edgerm"])
def test_data_directory_that_cannot_be_made(cluster: Cluster, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    path = str(tmp_path / place)
    assert path in fails(cluster, "master", "--listen", cluster.url, "--data-dir", path)
    assert path in fails(cluster, "agent", "--master", cluster.url, "--data-dir", path)


def test_off_loopback_nothing_runs_by_accident(cluster: Cluster, tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path / "x"))
    assert "insecure" in fails(cluster, "master", "--listen", "ws://0.0.0.0:0", *data)
    assert "insecure" in fails(cluster, "agent", "--master", "ws://192.0.2.1:7070", *data)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_full_disk_holds_everything_back_until_there_is_room(cluster: Cluster, small_disk: Path) -> None:
    cluster.start("master", "master", "--listen", cluster.url, "--data-dir", str(small_disk / "m"))
    cluster.wait("the master answers", lambda: cluster.edgerm("ps", check=False).returncode == 0)
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    run = subprocess.Popen(
        [sys.executable, "-m", "edgerm_core.cli.main", "run", "--detach", "--process", "--", "true"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=cluster.environment,
    )
    cluster.wait("the log says so", lambda: "is the disk full" in cluster.log("master"))
    assert run.poll() is None, "nothing was promised that is not on disk"
    filler.unlink()
    output, _ = run.communicate(timeout=60)
    assert output.strip() == "t1"
    assert [row["id"] for row in cluster.tasks()] == ["t1"]


# --- the network and its peers ------------------------------------------------------------------


def test_master_unreachable(cluster: Cluster) -> None:
    done = cluster.edgerm("ps", check=False)
    assert done.returncode == 3
    assert f"no master answers at {cluster.url}" in done.stderr
    assert done.stderr.count("\n") == 1
    cluster.start_agent("a1", ready=False)
    cluster.wait("the agent says so", lambda: cluster.log("a1").count("nobody listens there") >= 2)
    assert cluster.processes["a1"].poll() is None
    cluster.start_master()
    cluster.wait("it has joined", lambda: cluster.agent("a1").get("connected") is True)


def test_a_copied_data_directory(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_master()
    cluster.start_agent("a1")
    shutil.copytree(tmp_path / "a1", tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock", "lock"))
    copy = ("agent", "--master", cluster.url, "--name", "copy", "--data-dir", str(tmp_path / "copy"))
    cluster.start("copy", *copy)
    cluster.wait("one of them ends", lambda: cluster.processes["a1"].poll() is not None)
    assert cluster.processes["a1"].returncode not in (0, 70)
    assert "its data directory is a copy" in cluster.log("a1").replace("\n", " ")
    assert len(cluster.rows("agents")) == 1


async def flood(url: str) -> tuple[str, float]:
    """Submit more than is allowed at once; return the refusal and how long a neighbour had to wait."""
    async with (
        connect_framework(url, name="flood") as flooder,
        connect_framework(url, name="neighbour") as neighbour,
    ):
        waits = process("sleep", "1000")
        many = task(waits, name="many", cpus=1000, instances=1000)
        assert len(await flooder.submit_many([many] * 10)) == MAX_SUBMIT_TASKS
        # Past the SDK, which splits what is too much for one submission.
        specs = (many.spec,) * 11
        message = Submit(1_000_000, tuple(f"f{i}" for i in range(11)), specs)
        with pytest.raises(RequestFailed) as refused:
            await flooder.session.request(
                lambda number: msgspec.structs.replace(message, request_id=number), Submitted
            )
        problem = str(refused.value)
        began = time.monotonic()
        ended = await (await neighbour.submit(task(process("true"), cpus=0.1))).wait()
        assert ended.exit_code == 0
        return problem, time.monotonic() - began


def test_ten_thousand_waiting_tasks_and_a_framework_that_floods(cluster: Cluster) -> None:
    cluster.start_master()
    cluster.start_agent("a1", "--executor", "process")
    problem, waited_s = anyio.run(flood, cluster.url)
    assert str(MAX_SUBMIT_TASKS) in problem
    assert waited_s < PATIENCE_S
    began = time.monotonic()
    assert len(cluster.rows("ps", "--limit", "10000")) == MAX_SUBMIT_TASKS
    assert time.monotonic() - began < PATIENCE_S
    done = cluster.edgerm("ps", "--state", "PENDING", "--limit", "10", "--json")
    assert len(json.loads(done.stdout)) == 10
    row = json.loads(cluster.edgerm("explain", "t1", "--json").stdout)
    row = row[0] if isinstance(row, list) else row
    assert "can never run on any" in row["summary"]


async def flood_frames(url: str, seconds: float) -> tuple[int, list[float]]:
    """Send frames as fast as the master reads; return how many, and what neighbours had to wait."""
    sent, waits = 0, []
    connection = await load_plugins(Config()).transport_for(url).connect(url)
    info = FrameworkInfo(FrameworkId("flood"), "flood")
    await connection.send(encode(Subscribe((OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION), info)))

    async def flood() -> None:
        nonlocal sent
        frame = encode_batch(Reconcile(number) for number in range(100))
        while True:
            await connection.send(frame)
            sent += 1

    async def drain() -> None:
        while True:
            await connection.receive()

    async with connect_framework(url, name="neighbour") as neighbour, anyio.create_task_group() as group:
        group.start_soon(flood)
        group.start_soon(drain)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            ended = await (await neighbour.submit(task(process("true"), cpus=0.1))).wait()
            assert ended.exit_code == 0
            waits.append(time.monotonic() - began)
        group.cancel_scope.cancel()
    await connection.close()
    return sent, waits


def test_a_peer_that_sends_as_fast_as_it_can_starves_nobody(cluster: Cluster) -> None:
    cluster.start_master()
    cluster.start_agent("a1", "--executor", "process")
    sent, waits = anyio.run(flood_frames, cluster.url, 3.0)
    assert sent > 10
    assert max(waits) < PATIENCE_S
    assert cluster.agent("a1")["connected"] is True


def test_a_request_for_a_task_that_is_not_there(cluster: Cluster) -> None:
    cluster.start_master()
    for command in ("story", "explain", "logs", "kill"):
        done = cluster.edgerm(command, "t99", check=False)
        assert done.returncode == 1, command
        assert "t99" in done.stderr


# --- tasks --------------------------------------------------------------------------------------


def test_a_spec_that_can_never_fit_is_explained_at_once(cluster: Cluster) -> None:
    cluster.start_master()
    cluster.start_agent("a1", "--executor", "process")
    cluster.edgerm("run", "--detach", "--name", "big", "--cpus", "4000", "--process", "--", "true")
    output = cluster.edgerm("explain", "big").stdout
    assert "can never run on any" in output
    assert "cpus: wants 4000" in output


def test_gigabytes_of_output_cost_no_more_than_the_ring(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_master()
    cluster.start_agent("a1", "--executor", "process")
    run = ("run", "--detach", "--name", "loud", "--cpus", "1", "--mem", "64MiB", "--process", "--")
    cluster.edgerm(*run, "sh", "-c", "head -c 1000000000 /dev/zero; echo end")
    ended = ("FINISHED", "FAILED")
    cluster.wait("it has ended", lambda: cluster.task("loud")["state"] in ended, GIGABYTE_S)
    assert cluster.task("loud")["state"] == "FINISHED"
    assert cluster.edgerm("logs", "loud", "--tail", "4").stdout == "end\n"
    assert 0 < bytes_of(tmp_path / "a1", "stdout.") <= LOG_RING_BYTES


def bytes_of(directory: Path, begin: str) -> int:
    """Return the size of all files whose names begin like that; files may go while they are looked at."""
    size = 0
    # Not `rglob`: it raises where a directory goes.
    for place, _, names in os.walk(directory):
        for name in names:
            if name.startswith(begin):
                with contextlib.suppress(FileNotFoundError):
                    size += Path(place, name).stat().st_size
    return size


def test_a_module_that_is_not_wasm(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_master()
    cluster.start_agent("a1", "--executor", "wasm")
    (tmp_path / "module.wasm").write_text("#!/bin/sh\n")
    done = cluster.edgerm("run", "--wasm", str(tmp_path / "module.wasm"), check=False)
    assert done.returncode == 1
    assert "the module is not WebAssembly" in done.stderr
    assert cluster.agent("a1")["connected"] is True


def test_a_fork_bomb_and_a_memory_hog_harm_nobody_else(cluster: Cluster) -> None:
    cluster.start_master()
    cluster.start_agent("a1", "--executor", "process")
    small = ("--cpus", "0.2", "--mem", "64MiB")
    hog = f"{sys.executable} -c 'x = bytearray(400 << 20)'"
    bomb = "i=0; while [ $i -lt 3000 ]; do sleep 60 & i=$((i+1)); done; wait"
    for name, command in (("neighbour", "sleep 4; echo fine"), ("hog", hog), ("bomb", bomb)):
        cluster.edgerm("run", "--detach", "--name", name, *small, "--process", "--", "sh", "-c", command)
    assert cluster.wait_for("hog", "FAILED", "FINISHED")["reason"] == "out-of-memory"
    assert cluster.wait_for("neighbour", "FINISHED", "FAILED")["state"] == "FINISHED"
    if cluster.wait_for("bomb", "RUNNING", "FAILED")["state"] == "RUNNING":
        cluster.edgerm("kill", "bomb", "--grace", "0.5")
    cluster.wait_for("bomb", "KILLED", "FAILED")
    cluster.wait("nothing of it is left", lambda: count_sleepers(cluster) == 0)
    assert cluster.agent("a1")["connected"] is True


def test_a_real_fork_bomb_ends_at_its_time_limit_and_leaves_nothing(cluster: Cluster) -> None:
    """Hundreds of its processes share a fifth of a processor to die in. The run counted as ended before
    the last was dead, and its control groups stayed for ever; `nothing_is_left` looks for them."""
    cluster.start_master()
    cluster.start_agent("a1", "--executor", "process")
    bomb = "b() { b | b & }; b; sleep 60"
    run = ("run", "--detach", "--name", "bomb", "--cpus", "0.2", "--mem", "64MiB", "--time-limit", "2")
    cluster.edgerm(*run, "--process", "--", "bash", "-c", bomb)
    quiet = ("run", "--cpus", "0.2", "--mem", "32MiB", "--process", "--", "echo", "fine")
    assert cluster.edgerm(*quiet).stdout == "fine\n"
    assert cluster.wait_for("bomb", "FAILED")["reason"] in ("time-limit", "pid-limit")
    row = cluster.agent("a1")
    assert (row["connected"], row["tasks"], row["free"]) == (True, 0, row["totals"])
    processes = processes_of(cluster.directory, but="edgerm")
    assert not [text for text in processes.values() if "bash" in text]


def count_sleepers(cluster: Cluster) -> int:
    """Return how many of the bomb's children live; others on this machine may sleep, too."""
    return [text.split() for text in processes_of(cluster.directory).values()].count(["sleep", "60"])


def test_a_wrong_spec_is_refused_with_the_key(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_master()
    spec = tmp_path / "tasks.toml"
    spec.write_text('[[task]]\nname = "x"\nresorces = "cpus:1"\n')
    done = cluster.edgerm("submit", str(spec), check=False)
    assert done.returncode == 2
    assert "resorces" in done.stderr
