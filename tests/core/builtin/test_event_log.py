"""The event log: every change as a line of JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from edgerm_core.builtin import event_log
from edgerm_core.builtin.event_log import EventLog, EventLogConfig
from edgerm_core.config import parse_config
from edgerm_core.errors import ConfigError, PluginError
from edgerm_core.observers import Observer
from edgerm_core.plugins import Plugins
from edgerm_core.testing.contracts.observer import MakeObserver, ObserverContract


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestEventLog(ObserverContract):
    @pytest.fixture(autouse=True)
    def written(self, path: Path) -> Path:
        self.path = path
        return path

    @pytest.fixture
    def make_observer(self, written: Path) -> MakeObserver:
        return lambda: EventLog(EventLogConfig(str(written)))

    def noted(self, observer: Observer) -> list[tuple[str, str]]:
        return [(line["kind"], line["id"]) for line in lines(self.path)]


def test_each_change_is_a_line_at_once(path: Path) -> None:
    observer = EventLog(EventLogConfig(str(path)))
    before = time.time()
    observer.task_changed({"id": "t1", "state": "RUNNING"})
    observer.agent_changed({"id": "a1", "free": {"cpus": 1.5}})
    observer.framework_changed({"id": "f1"})
    task, agent, framework = lines(path)
    observer.close()
    assert before - 1 <= task.pop("at") <= time.time() + 1
    assert task == {"kind": "task", "id": "t1", "state": "RUNNING"}
    assert (agent["kind"], agent["free"]) == ("agent", {"cpus": 1.5})
    assert framework["kind"] == "framework"


def test_bytes_become_base64(path: Path) -> None:
    observer = EventLog(EventLogConfig(str(path)))
    observer.task_changed({"result": b"\x00\xff", "message": "größer\nals eine Zeile"})
    observer.close()
    (line,) = lines(path)
    assert (line["result"], line["message"]) == ("AP8=", "größer\nals eine Zeile")


def test_an_existing_file_is_appended_to(path: Path) -> None:
    for name in ("t1", "t2"):
        observer = EventLog(EventLogConfig(str(path)))
        observer.task_changed({"id": name})
        observer.close()
        observer.close()
    assert [line["id"] for line in lines(path)] == ["t1", "t2"]


def test_beyond_its_size_the_file_is_rotated_once(path: Path) -> None:
    observer = EventLog(EventLogConfig(str(path), max_bytes=300))
    for number in range(20):
        observer.task_changed({"id": f"t{number}"})
    observer.close()
    kept = path.with_name("events.jsonl.1")
    ids = [line["id"] for line in lines(kept) + lines(path)]
    assert ids == [f"t{number}" for number in range(20 - len(ids), 20)]
    assert kept.stat().st_size < 400
    assert path.stat().st_size <= 300
    assert sorted(p.name for p in path.parent.iterdir()) == ["events.jsonl", "events.jsonl.1"]


def test_it_comes_through_the_hook_with_its_section(path: Path) -> None:
    plugins = Plugins(parse_config(f'[observer.event-log]\npath = "{path}"\nmax_bytes = 1000\n'))
    plugins.add(event_log, "event-log", "edgerm-core", "0")
    observer = plugins.create("observer", "event-log")
    observer.task_changed({"id": "t1"})
    observer.close()
    assert len(lines(path)) == 1


def test_a_path_that_cannot_be_written_is_seen_at_the_start(tmp_path: Path) -> None:
    plugins = Plugins(parse_config(f'[observer.event-log]\npath = "{tmp_path}/none/events"\n'))
    plugins.add(event_log, "event-log", "edgerm-core", "0")
    with pytest.raises(PluginError, match="observer cannot be created: FileNotFoundError"):
        plugins.create("observer", "event-log")


def test_a_section_without_a_path_is_named() -> None:
    plugins = Plugins(parse_config("[observer.event-log]\nmax_bytes = 5\n"))
    plugins.add(event_log, "event-log", "edgerm-core", "0")
    with pytest.raises(ConfigError, match=r"observer\.event-log.*path"):
        plugins.create("observer", "event-log")
