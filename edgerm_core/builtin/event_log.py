"""A built-in observer: every change on the master as a line of JSON in a file.

    [observer.event-log]
    path = "/var/log/edgerm/events.jsonl"

Each line is `{"at": …, "kind": "task" | "agent" | "framework", …the row of the listing…}`. The file
is kept open and rotated once to `<path>.1` when it exceeds `max_bytes`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import msgspec

from edgerm_core.hookspecs import hookimpl
from edgerm_core.interfaces import Provider
from edgerm_core.observers import Observer, Row


class EventLogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[observer.event-log]`.

    Attributes:
        path: file to append to.
        max_bytes: rotated beyond this size; the one before it is kept as `<path>.1`.
    """

    path: str
    max_bytes: int = 64 << 20


class EventLog(Observer):
    """Appends rows to the file. Raises what opening the file raises, so that a wrong path is seen."""

    def __init__(self, config: EventLogConfig) -> None:
        self._path = Path(config.path)
        self._max_bytes = config.max_bytes
        self._file: IO[bytes] = open(self._path, "ab", buffering=0)
        self._encode = msgspec.json.Encoder().encode

    def task_changed(self, task: Row) -> None:
        self._write("task", task)

    def agent_changed(self, agent: Row) -> None:
        self._write("agent", agent)

    def framework_changed(self, framework: Row) -> None:
        self._write("framework", framework)

    def close(self) -> None:
        self._file.close()

    def _write(self, kind: str, row: Row) -> None:
        self._file.write(self._encode({"at": time.time(), "kind": kind, **row}) + b"\n")
        if self._file.tell() > self._max_bytes:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = open(self._path, "ab", buffering=0)


@hookimpl
def observers() -> Iterable[Provider[Observer]]:
    """Provide `event-log`."""
    return [Provider("event-log", EventLog, EventLogConfig, summary="changes as JSON lines in a file")]
