"""Plugins that fail, lie or hang, beside real daemons: each is named, and the others go on.

What can only be seen from inside is in tests/core, in `test_plugins.py` (loading, creating),
`test_watchdog.py`, and below `agent` and `master` beside what has to bear it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgerm_core.master.timelimit import CALL_LIMIT_S
from edgerm_core.plugins import LOAD_TIMEOUT_S
from edgerm_core.testing.processes import CONFIG, Cluster, cluster_in
from edgerm_core.watchdog import BLOCKED_S

pytestmark = pytest.mark.timeout(300)

HEAD = """
import sys, time
import anyio
from edgerm_core.agents import Fingerprint
from edgerm_core.hookspecs import hookimpl
from edgerm_core.interfaces import DeviceDriver, Executor, Provider, Scheduler, TaskHandle
from edgerm_core.observers import Observer
from edgerm_core.testing.fakes import FakeExecutor
"""

PROVIDES = """
@hookimpl
def {hook}():
    yield Provider({name!r}, lambda _: {made})
"""

FAULTS = {
    "raises-on-import": "raise OSError('libfoo.so.1 is missing')",
    "exits-on-import": "sys.exit('wrong platform')",
    "raises-in-hook": "@hookimpl\ndef executors():\n    raise RuntimeError('no board')",
    "nonsense-in-hook": "@hookimpl\ndef executors():\n    return ['sleep']",
    "nothing-in-hook": "@hookimpl\ndef schedulers():\n    return None",
    "other-version": "@hookimpl\ndef executors():\n    yield Provider('old', FakeExecutor, api_version=99)",
    "wrong-arguments": "@hookimpl\ndef executors(config):\n    return []",
    "no-such-hook": "@hookimpl\ndef executers():\n    return []",
    "nonsense-command": "@hookimpl\ndef commands():\n    return ['greet']",
    "takes-a-name": PROVIDES.format(hook="stores", name="sqlite", made="open"),
}
"""Plugin to what is wrong with it as soon as it is loaded."""

PROBLEMS = {
    "raises-on-import": "OSError: libfoo.so.1 is missing",
    "exits-on-import": "SystemExit: wrong platform",
    "raises-in-hook": "RuntimeError: no board",
    "nonsense-in-hook": "hook executors returned 'sleep', expected a Provider",
    "nothing-in-hook": "hook schedulers returned None, expected providers",
    "other-version": "executor old was written for interface version 99",
    "wrong-arguments": "config",
    "no-such-hook": "executers",
    "nonsense-command": "hook commands returned 'greet', expected click commands",
    "takes-a-name": "store 'sqlite' is already provided by another plugin",
}

EXECUTORS = """
class Fine(FakeExecutor):
    def __init__(self):
        super().__init__("fine")

class RaisesInFingerprint(FakeExecutor):
    async def fingerprint(self):
        raise RuntimeError("no runtime")

class HangsInFingerprint(FakeExecutor):
    async def fingerprint(self):
        await anyio.sleep_forever()

class RaisesInStart(FakeExecutor):
    async def start(self, launch, sandbox):
        raise RuntimeError("lost my keys")

class NothingFromStart(FakeExecutor):
    async def start(self, launch, sandbox):
        return None

class HangsInStart(FakeExecutor):
    async def start(self, launch, sandbox):
        await anyio.sleep_forever()

class BlocksInStart(FakeExecutor):
    async def start(self, launch, sandbox):
        time.sleep(3600)

class RaisesInWait(FakeExecutor):
    async def wait(self, handle):
        raise RuntimeError("lost the thread")

def broken(_):
    raise RuntimeError("no permission")

@hookimpl
def executors():
    yield Provider("create-raises", broken)
    yield Provider("create-exits", lambda _: sys.exit(3))
    yield Provider("create-nothing", lambda _: None)
    yield Provider("fingerprint-raises", lambda _: RaisesInFingerprint("fingerprint-raises"))
    yield Provider("fingerprint-hangs", lambda _: HangsInFingerprint("fingerprint-hangs"))
    for made in (RaisesInStart("start-raises"), NothingFromStart("start-nothing"),
                 HangsInStart("start-hangs"), BlocksInStart("start-blocks"),
                 RaisesInWait("wait-raises")):
        made.fingerprinted = Fingerprint(made.name, "1")
        yield Provider(made.name, lambda _, made=made: made)
    yield Provider("fine", lambda _: Fine())

class RaisesInDiscover(DeviceDriver):
    name = "discover-raises"

    async def discover(self):
        yield ()
        raise RuntimeError("bus error")

    async def reserve(self, device_id, task_id, fence):
        raise NotImplementedError

    async def release(self, device_id, task_id, fence):
        raise NotImplementedError

class NonsenseFromDiscover(RaisesInDiscover):
    name = "discover-nonsense"

    async def discover(self):
        yield "cam0"

@hookimpl
def device_drivers():
    yield Provider("discover-raises", lambda _: RaisesInDiscover())
    yield Provider("discover-nonsense", lambda _: NonsenseFromDiscover())

class HangsInCall(Observer):
    def task_changed(self, task):
        time.sleep(3600)

class RaisesInCall(Observer):
    def task_changed(self, task):
        raise RuntimeError("disk full")

@hookimpl
def observers():
    yield Provider("observer-create-raises", broken)
    yield Provider("observer-call-raises", lambda _: RaisesInCall())
    yield Provider("observer-call-hangs", lambda _: HangsInCall())
"""

SCHEDULERS = """
class Raises(Scheduler):
    def schedule(self, snapshot):
        raise RuntimeError("index out of step")

class Nonsense(Scheduler):
    def schedule(self, snapshot):
        return ["t1 to a1"]

class Loops(Scheduler):
    def schedule(self, snapshot):
        while any(f.pending_count for f in snapshot.frameworks.values()):
            time.sleep(0.01)
        return []

def broken(_):
    raise RuntimeError("no solver")

@hookimpl
def schedulers():
    yield Provider("create-raises", broken)
    yield Provider("create-nothing", lambda _: None)
    yield Provider("raises", lambda _: Raises())
    yield Provider("nonsense", lambda _: Nonsense())
    yield Provider("loops", lambda _: Loops())
"""

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a plugin of one module for the daemons and commands of this test."""
    site = tmp_path / "site"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))

    def add(name: str, source: str) -> None:
        module = f"faulty_{name.replace('-', '_')}"
        info = site / f"{module}-1.2.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(HEAD + source + "\n")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: faulty-{name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[edgerm]\n{name} = {module}\n")

    return add


def task(name: str, executor: str) -> str:
    return (
        f'[[task]]\nname = "{name}"\nresources = "cpus:0.01"\n'
        f'[[task.implementation]]\nexecutor = "{executor}"\n'
    )


def submit(cluster: Cluster, text: str) -> None:
    path = cluster.directory / "tasks.toml"
    path.write_text(text)
    cluster.edgerm("submit", str(path))


def wait_for_log(cluster: Cluster, name: str, words: str) -> None:
    """Wait until a daemon's log has these words: what it tells others may be there sooner."""
    cluster.wait(f"{name} says: {words}", lambda: words in cluster.log(name))


def test_what_is_wrong_when_loaded_is_listed_and_the_daemons_go_on(
    tmp_path: Path, install: Install
) -> None:
    for name, source in FAULTS.items():
        install(name, source)
    install("executors", EXECUTORS)
    with cluster_in(tmp_path, CONFIG) as cluster:
        rows = {row["name"]: row for row in cluster.rows("plugins") if row["distribution"] != "edgerm-core"}
        for name, problem in PROBLEMS.items():
            row = rows[name]
            assert (row["status"], row["distribution"], row["version"]) == (
                "broken",
                f"faulty-{name}",
                "1.2",
            )
            assert problem in row["problem"]
        assert rows["executors"]["status"] == "loaded"
        cluster.start_master()
        cluster.start_agent("a1", "--executor", "fine")
        for name in set(FAULTS) - {"nonsense-command"}:  # No daemon asks for commands.
            assert f"plugin {name} is disabled: " in cluster.log("a1")
        submit(cluster, task("works", "fine"))
        cluster.wait_for("works", "FINISHED")
        said = cluster.edgerm("agent", "--executor", "old", check=False).stderr
        assert "plugin old: no executor 'old' is installed" in said


def test_executors_and_drivers_that_fail_later_are_named_and_the_others_go_on(
    tmp_path: Path, install: Install
) -> None:
    install("executors", EXECUTORS)
    sections = (
        "[device_driver.discover-raises]\n[device_driver.discover-nonsense]\n"
        "[observer.observer-create-raises]\n[observer.observer-call-raises]\n"
    )
    with cluster_in(tmp_path, CONFIG + sections) as cluster:
        cluster.start_master()
        cluster.start_agent("a1")
        for sentence in (
            "executor create-raises is left out: plugin create-raises: executor cannot be created: "
            "RuntimeError: no permission",
            "executor create-exits is left out: plugin create-exits: executor cannot be created: "
            "SystemExit: 3",
            "executor create-nothing is left out: plugin create-nothing: its factory returned NoneType",
            "executor fingerprint-raises failed: RuntimeError: no runtime",
            "executor fingerprint-hangs did not answer within 10 s",
            "device driver discover-raises: RuntimeError: bus error; its devices are withdrawn",
            "device driver discover-nonsense: ",
        ):
            wait_for_log(cluster, "a1", sentence)
        healthy = {row["name"]: row["healthy"] for row in cluster.agent("a1")["executors"]}
        assert healthy["fine"] is True
        assert healthy["fingerprint-raises"] is healthy["fingerprint-hangs"] is False

        names = ("start-raises", "start-nothing", "wait-raises", "start-hangs", "fine")
        submit(cluster, "".join(task(name, name) for name in names))
        for name in names[:3]:
            assert f"executor {name} " in cluster.wait_for(name, "FAILED")["message"]
        cluster.wait_for("fine", "FINISHED")
        cluster.wait_for("start-hangs", "STARTING")
        cluster.edgerm("kill", cluster.task("start-hangs")["id"])
        cluster.wait_for("start-hangs", "KILLED")
        for sentence in (
            "observer observer-create-raises is left out: plugin observer-create-raises: ",
            "observer observer-call-raises failed and is not called again: disk full",
        ):
            wait_for_log(cluster, "master", sentence)
        assert cluster.stop("a1") == 0
        assert cluster.stop("master") == 0


@pytest.mark.parametrize(
    ("scheduler", "sentence"),
    [
        ("create-raises", "plugin create-raises: scheduler cannot be created: RuntimeError: no solver"),
        ("create-nothing", "plugin create-nothing: its factory returned NoneType, expected Scheduler"),
        ("gone", "plugin gone: scheduler 'gone' is installed but broken: OSError: libfoo.so.1 is missing"),
    ],
)
def test_without_the_scheduler_it_is_told_to_use_the_master_says_why_and_ends(
    scheduler: str, sentence: str, tmp_path: Path, install: Install
) -> None:
    install("schedulers", SCHEDULERS)
    install("gone", FAULTS["raises-on-import"])
    cluster = Cluster(tmp_path)
    done = cluster.edgerm(
        "master", "--scheduler", scheduler, "--data-dir", str(tmp_path / "m"), check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"edgerm: {sentence}"


@pytest.mark.parametrize(
    ("scheduler", "sentence"),
    [
        ("raises", "scheduler Raises failed: RuntimeError: index out of step; asked again"),
        ("nonsense", "scheduler Nonsense failed: TypeError: 't1 to a1' is not a decision"),
    ],
)
def test_a_scheduler_that_fails_is_named_and_everything_else_goes_on(
    scheduler: str, sentence: str, tmp_path: Path, install: Install
) -> None:
    install("schedulers", SCHEDULERS)
    install("executors", EXECUTORS)
    with cluster_in(tmp_path, CONFIG) as cluster:
        cluster.start_master("--scheduler", scheduler)
        cluster.start_agent("a1", "--executor", "fine")
        submit(cluster, task("waits", "fine"))
        wait_for_log(cluster, "master", sentence)
        assert cluster.task("waits")["state"] == "PENDING"
        cluster.edgerm("kill", cluster.task("waits")["id"])
        cluster.wait_for("waits", "KILLED")
        assert cluster.stop("master") == 0


def test_a_scheduler_and_an_observer_that_never_return_are_broken_off_and_named(
    tmp_path: Path, install: Install
) -> None:
    install("schedulers", SCHEDULERS)
    install("executors", EXECUTORS)
    sections = "[observer.observer-call-hangs]\n"
    with cluster_in(tmp_path, CONFIG + sections) as cluster:
        cluster.start_master("--scheduler", "loops")
        cluster.start_agent("a1", "--executor", "fine")
        path = tmp_path / "tasks.toml"
        path.write_text(task("waits", "fine"))
        cluster.start("submit", "submit", str(path))
        hangs = f"it did not return within {CALL_LIMIT_S:g} s, in plugin"
        observer = "observer observer-call-hangs failed and is not called again"
        wait_for_log(cluster, "master", f"{observer}: {hangs} executors")
        cluster.processes.pop("submit").wait()
        wait_for_log(cluster, "master", f"scheduler Loops failed: {hangs} schedulers (Loops.schedule in ")
        wait_for_log(cluster, "master", '[plugins] disable = ["schedulers"]')
        task_id = cluster.task("waits")["id"]
        said = cluster.edgerm("explain", task_id).stdout
        assert "scheduler Loops failed: it did not return within" in said
        cluster.edgerm("kill", task_id)
        cluster.wait_for("waits", "KILLED")
        assert cluster.stop("master") == 0
        cluster.start_master()  # With another scheduler, and all that was promised before.
        cluster.wait("the agent is back", lambda: cluster.agent("a1").get("connected") is True)


def test_what_cannot_be_broken_off_is_named_with_where_it_is(tmp_path: Path, install: Install) -> None:
    install("executors", EXECUTORS)
    with cluster_in(tmp_path, CONFIG) as cluster:
        cluster.start_master()
        cluster.start_agent("a1", "--executor", "start-blocks")
        submit(cluster, task("waits", "start-blocks"))
        named = f"blocked for {BLOCKED_S:g} s by plugin executors (BlocksInStart.start in "
        wait_for_log(cluster, "a1", named)
        wait_for_log(cluster, "a1", '[plugins] disable = ["executors"]')
        cluster.kill("a1")


def test_a_command_does_not_load_what_it_does_not_need(tmp_path: Path, install: Install) -> None:
    """So one that hangs costs nobody's time but theirs who might need it."""
    noted = tmp_path / "imported"
    install("executors", EXECUTORS)
    with cluster_in(tmp_path, CONFIG) as cluster:
        cluster.start_master()
        cluster.start_agent("a1", "--executor", "fine")
        install("notes-its-import", f"open({str(noted)!r}, 'a').close()")
        submit(cluster, task("works", "fine"))
        cluster.wait_for("works", "FINISHED")
        for command in (
            ("ps", "--all"),
            ("agents",),
            ("story", "works"),
            ("demo", "--help"),
        ):
            cluster.edgerm(*command)
        assert not noted.exists()
        cluster.edgerm("--help")
        assert noted.exists()


def test_a_plugin_whose_import_hangs_is_given_up_on(tmp_path: Path, install: Install) -> None:
    install("hangs-on-import", "time.sleep(3600)")
    started = time.monotonic()
    done = Cluster(tmp_path).edgerm("plugins", "--json")  # Which must end within two minutes.
    assert time.monotonic() - started >= LOAD_TIMEOUT_S
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["hangs-on-import"]["problem"] == f"its import did not end within {LOAD_TIMEOUT_S:g} s"
    assert {row["status"] for name, row in rows.items() if name != "hangs-on-import"} == {"loaded"}
