"""Observers with bugs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edgerm_core.builtin.event_log import EventLog, EventLogConfig
from edgerm_core.observers import Observer, Row
from edgerm_core.testing.contracts import observer as kit
from edgerm_core.testing.contracts.observer import MakeObserver, ObserverContract


class Sound(ObserverContract):
    caught_by: ClassVar[str]
    says: ClassVar[str] = ""
    bug: ClassVar[type[EventLog]]
    patience_s: ClassVar[float] = kit.PATIENCE_S

    @pytest.fixture
    def make_observer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeObserver:
        monkeypatch.setattr(kit, "PATIENCE_S", type(self).patience_s)
        self.path = tmp_path / "changes"
        return lambda: type(self).bug(EventLogConfig(str(self.path)))

    def noted(self, observer: Observer) -> Sequence[tuple[str, str]]:
        rows = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [(row["kind"], row["id"]) for row in rows]


class TestSound(Sound):
    bug = EventLog


class TestTakesFromTheRow(Sound):
    class bug(EventLog):
        def task_changed(self, task: Row) -> None:
            super().task_changed(task)
            task.pop("spec", task.pop("name", None))  # type: ignore[attr-defined]

    caught_by = "test_it_leaves_the_rows_as_they_are"


class TestKnowsAllStates(Sound):
    class bug(EventLog):
        def task_changed(self, task: Row) -> None:
            {"PENDING": 1, "STAGING": 2, "RUNNING": 3, "FINISHED": 4, "FAILED": 5}[task["state"]]

    caught_by = "test_it_takes_keys_and_states_of_a_later_version"
    says = "DREAMING"


class TestWantsText(Sound):
    class bug(EventLog):
        def task_changed(self, task: Row) -> None:
            json.dumps(dict(task))

    caught_by = "test_it_takes_any_text_and_bytes"
    says = "not JSON serializable"


class TestTakesItsTime(Sound):
    class bug(EventLog):
        def task_changed(self, task: Row) -> None:
            time.sleep(0.02)

    caught_by = "test_it_returns_fast"
    says = "hand the work to a thread"


class TestClosesOnce(Sound):
    class bug(EventLog):
        def close(self) -> None:
            self._file.flush()
            super().close()

    caught_by = "test_closing_is_idempotent"


class TestTellsBackwards(Sound):
    class bug(EventLog):
        later: ClassVar[list[tuple[str, Any]]] = []

        def _write(self, kind: str, row: Row) -> None:
            if kind == "task":
                super()._write(kind, row)
            else:
                self.later.append((kind, dict(row)))

        def close(self) -> None:
            while self.later:
                super()._write(*self.later.pop())
            super().close()

    caught_by = "test_what_it_notes_is_in_the_order_in_which_it_was_told"


class TestLeavesAThread(Sound):
    over: ClassVar[threading.Event] = threading.Event()
    patience_s = 0.5

    class bug(EventLog):
        def __init__(self, config: EventLogConfig) -> None:
            super().__init__(config)
            threading.Thread(target=TestLeavesAThread.over.wait, name="forwarder").start()

    @pytest.fixture(autouse=True)
    def ends(self) -> Iterator[None]:
        yield
        self.over.set()

    caught_by = "test_closing_leaves_no_thread_that_keeps_the_master_from_ending"
    says = "thread forwarder goes on after close"


class TestCanBeHadOnce(Sound):
    class bug(EventLog):
        def __init__(self, config: EventLogConfig) -> None:
            Path(f"{config.path}.lock").touch(exist_ok=False)
            super().__init__(config)

    caught_by = "test_the_next_master_can_have_one_like_it"
    says = "FileExistsError"
