"""Real daemons on real links, killed, hung, cut off and rebooted at random; then nothing may be wrong.

`EDGERM_CHAOS_SEED` repeats the faults of a run (their effects are a matter of timing, and that is the
machine's). `EDGERM_CHAOS_SECONDS` is how long faults go on; to set up, calm down and check comes on top.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from edgerm_core.agent.journal import Journal
from edgerm_core.agent.records import decode_record
from edgerm_core.agent.recovery import recover
from edgerm_core.builtin.first_fit import FirstFitScheduler
from edgerm_core.builtin.sqlite_store import open_store
from edgerm_core.master import invariants
from edgerm_core.master.machine import Machine
from edgerm_core.master.settings import Settings
from edgerm_core.testing.processes import ending, processes_of
from tests.e2e.chaos import verdict
from tests.e2e.chaos.cluster import KEEPER, ChaosCluster
from tests.e2e.chaos.evidence import read_evidence, read_volumes
from tests.e2e.chaos.framework import ENOUGH, read_diary
from tests.e2e.chaos.network import Network, missing
from tests.e2e.chaos.plan import make_plan
from tests.e2e.chaos.workload import make_job

SECONDS: Final = float(os.environ.get("EDGERM_CHAOS_SECONDS", "30"))
SEED: Final = int(os.environ.get("EDGERM_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
SETTLE_S: Final = 120.0
"""Longer than the longest pause between two tries to connect."""

LOG_LINES: Final = 60
"""Of each daemon's log, shown after a failure."""

AGENTS: Final = ("a1", "a2", "a3", "a4")
FRAMEWORKS: Final = {"submits": "submits", "takes": "offers"}
MORTAL: Final = ("submits",)

VOLATILE: Final = ("usage", "last_heard_s", "peer", "heartbeat_s", "share")
"""What a listing says of this moment, and not of the books."""

BUGS: Final = ("Traceback", "please report this", "which cannot be")

pytestmark = [pytest.mark.root, pytest.mark.timeout(SECONDS + 500)]


@contextlib.contextmanager
def chaos_in(directory: Path) -> Iterator[ChaosCluster]:
    """A cluster of which nothing is left afterwards; what went before a failure is printed."""
    with Network() as network:
        cluster = ChaosCluster(directory, network, SEED)
        try:
            with ending(cluster):
                try:
                    yield cluster
                except BaseException:
                    explain(cluster)
                    raise
                finally:
                    cluster.calm()
        finally:
            cluster.remove_agent_groups()


def explain(cluster: ChaosCluster) -> None:
    """Print what led to a failure."""
    print(f"\n--- timeline; to repeat it: EDGERM_CHAOS_SEED={SEED} EDGERM_CHAOS_SECONDS={SECONDS:g}")
    print("\n".join(cluster.timeline))
    for path in sorted(cluster.directory.glob("*.log")):
        lines = path.read_text(errors="replace").splitlines()
        print(f"\n--- {path.name}, the last of {len(lines)} lines")
        print("\n".join(lines[-LOG_LINES:]))


def remains(find: Callable[[], list[str]], wait_s: float = SETTLE_S) -> list[str]:
    """Return what `find` still finds after at most `wait_s`; at once when that is nothing."""
    end = time.monotonic() + wait_s
    while (found := find()) and time.monotonic() < end:
        time.sleep(0.3)
    return found


def test_nothing_is_lost_or_done_twice_whatever_dies_hangs_or_is_cut_off(tmp_path: Path) -> None:
    if problem := missing():
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    print(f"EDGERM_CHAOS_SEED={SEED}")
    with chaos_in(tmp_path) as chaos:
        go_through(chaos)


def go_through(chaos: ChaosCluster) -> None:
    """Set up, suffer, calm down, check."""
    chaos.start_again("master")
    chaos.wait("the master answers", lambda: chaos.edgerm("ps", check=False).returncode == 0)
    for name in AGENTS:
        chaos.add_agent(name)
    for name, manner in FRAMEWORKS.items():
        chaos.add_framework(name, manner)
    chaos.wait("all agents are there", lambda: len(chaos.rows("agents")) == len(AGENTS))

    chaos.suffer(make_plan(SEED, SECONDS, AGENTS, list(FRAMEWORKS), MORTAL))
    expect_none(chaos.problems)
    chaos.note("calm")
    (chaos.evidence / ENOUGH).touch()
    expect_none(remains(lambda: [name for name in FRAMEWORKS if chaos.processes[name].poll() is None]))
    assert [chaos.processes.pop(name).returncode for name in FRAMEWORKS] == [0, 0]
    chaos.note("all tasks have ended")
    rows = settled(chaos)
    for name in ("master", *AGENTS):
        chaos.check_alive(name)
    expect_none(chaos.problems)

    print(summary(chaos, rows))
    expect_none(judge(chaos, rows))
    chaos.kill("master")
    chaos.start_again("master")
    assert stable(settled(chaos)) == stable(rows)

    expect_none(remains(lambda: list(leftovers(chaos))))
    chaos.stop_all()
    check_records(chaos)
    expect_none(line for name in ("master", *AGENTS) for line in complaints(chaos.log(name)))


def expect_none(problems: Iterable[str]) -> None:
    """Fail with all of them, each on a line."""
    found = list(problems)
    assert not found, "\n".join(["", *found])


def summary(chaos: ChaosCluster, rows: dict[str, Any]) -> str:
    """Return in a few lines what was done and what came of it."""
    ends = collections.Counter(f"{task['state']} ({task['reason']})" for task in rows["tasks"])
    starts = sum(line.what == "start" for lines in read_evidence(chaos.evidence).values() for line in lines)
    attempts = collections.Counter(task["attempt"] for task in rows["tasks"])
    parts = [f"{starts} starts of processes; attempts of tasks: {dict(sorted(attempts.items()))}"]
    parts += [f"{count} x {what}" for what, count in ends.most_common()]
    parts += [f"{count} x {what}" for what, count in sorted(chaos.faults.items())]
    return "\n".join(parts)


def settled(chaos: ChaosCluster) -> dict[str, Any]:
    """Return the first listing in which all agents are there and nothing is held by anybody."""
    rows: dict[str, Any] = {}

    def held() -> list[str]:
        nonlocal rows
        rows = again(chaos)
        return list(verdict.check_agents(rows["agents"], AGENTS))

    expect_none(remains(held))
    return rows


def again(chaos: ChaosCluster) -> dict[str, Any]:
    """Return the listing of a master that may not be up yet."""
    try:
        return chaos.listing()
    except AssertionError:
        return {"agents": []}


def stable(rows: dict[str, Any]) -> dict[str, Any]:
    """Return a listing without what changes by itself."""
    return {
        kind: [{name: value for name, value in row.items() if name not in VOLATILE} for row in each]
        for kind, each in rows.items()
    }


def judge(chaos: ChaosCluster, rows: dict[str, Any]) -> Iterator[str]:
    """Yield all that is wrong with what the master, the frameworks and the tasks say."""
    evidence = read_evidence(chaos.evidence)
    for framework in FRAMEWORKS:
        for agent in AGENTS:
            for name, line in read_volumes(chaos.directory / agent, framework):
                evidence.setdefault(name, []).append(line)
    for framework in FRAMEWORKS:
        diary = read_diary(chaos.evidence / f"{framework}.diary")
        numbers = sorted({line["number"] for line in diary if line["what"] == "intend"})
        jobs = {job.key: job for job in (make_job(SEED, framework, number) for number in numbers)}
        tasks = [task for task in rows["tasks"] if task["framework"] == framework]
        yield from verdict.check_diary(diary)
        yield from verdict.check_tasks(tasks, jobs, diary)
        for task in tasks:
            yield from verdict.check_story(task)
            lines = evidence.pop(f"{task['name']}.{task['index']}", [])
            if task["name"] in jobs and jobs[task["name"]].witnessed:
                yield from verdict.check_runs(task, jobs[task["name"]], lines)
    for name in evidence:
        yield f"{name} has run, and the master knows nothing of it"


def leftovers(chaos: ChaosCluster) -> Iterator[str]:
    """Yield what tasks that have ended have left on the agents' machines."""
    for name in AGENTS:
        directory = chaos.directory / name
        for path in (path for task in entries(directory / "tasks") for path in entries(task)):
            if path.name != "logs":
                yield f"{name} still has {path}"
        for group in chaos.groups(name):
            yield f"{name} still has the control group {group}"
        agent = chaos.processes[name].pid
        for pid, text in processes_of(directory).items():
            if pid != agent and KEEPER not in text:
                yield f"on {name} still runs process {pid}: {text}"
        for run in kept_runs(directory / "executor-process"):
            yield f"the keeper of {name} still has {run}"


def entries(directory: Path) -> list[Path]:
    """Return what is in a directory; nothing if it is not there any more."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return list(directory.iterdir())
    return []


def complaints(log: str) -> list[str]:
    """Return the lines of a log that only a bug can cause."""
    return [line for line in log.splitlines() if any(words in line for words in BUGS)]


def kept_runs(state_dir: Path) -> list[str]:
    """Return the runs that the keeper knows: none if it has ended, or ends just now."""
    directory = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as keeper:
            # The path proper may be longer than a socket's may.
            keeper.connect(f"/proc/self/fd/{directory}/keeper.sock")
            keeper.sendall(b'{"id": 1, "op": "runs"}\n')
            answer = keeper.makefile().readline()
            keys: list[str] = json.loads(answer)["keys"] if answer else []
            return keys
    except (FileNotFoundError, ConnectionError):
        return []
    finally:
        os.close(directory)


def check_records(chaos: ChaosCluster) -> None:
    """Check what the daemons have on disk."""
    for name in AGENTS:
        journal = Journal(chaos.directory / name / "journal")
        recovered = recover(map(decode_record, journal.read()))
        journal.close()
        assert recovered.runs == {}, name
    store = open_store(chaos.directory / "master")
    machine = Machine(Settings(), FirstFitScheduler(), "offline")
    records: dict[str, dict[bytes, bytes]] = {}
    for kind, key, value in store.load():
        records.setdefault(kind, {})[key] = value
    machine.restore(records, time.time())
    store.close()
    invariants.check(machine.state)
