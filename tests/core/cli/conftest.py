"""A scripted master for commands: no sockets, answers laid out by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgerm_core.cli.main import edgerm
from edgerm_core.errors import EdgermError
from edgerm_core.ids import TaskId
from edgerm_core.messages import Answer

Row = dict[str, Any]


class ScriptedOperator:
    """Answers queries from `rows`, remembers every request."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Row] | Callable[[Row], list[Row]]] = {}
        self.requests: list[tuple[Any, ...]] = []
        self.error: EdgermError | None = None
        self.pieces: Sequence[bytes] = ()

    async def query(self, kind: str, **args: Any) -> Answer:
        self.requests.append((kind, args))
        if self.error:
            raise self.error
        rows = self.rows.get(kind, [])
        found = rows(args) if callable(rows) else rows
        limit = args.get("limit") or len(found)
        return Answer(1, tuple(found[:limit]), len(found))

    async def drain(self, agent_id: str, *, undo: bool = False) -> None:
        self.requests.append(("drain", agent_id, undo))

    async def forget(self, agent_id: str) -> None:
        self.requests.append(("forget", agent_id))

    async def kill(self, task_ids: Sequence[TaskId], *, grace_s: float | None = None) -> None:
        self.requests.append(("kill", list(task_ids), grace_s))

    async def logs(self, task_id: TaskId, stream: str, **options: Any) -> AsyncIterator[Any]:
        self.requests.append(("logs", task_id, stream, options))
        for piece in self.pieces:
            yield piece


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> ScriptedOperator:
    """What every command that asks the master is connected to."""
    scripted = ScriptedOperator()

    @asynccontextmanager
    async def connect(*args: Any, **options: Any) -> AsyncIterator[ScriptedOperator]:
        scripted.requests.append(("connect", args, options.get("insecure")))
        yield scripted

    monkeypatch.setattr("edgerm_core.client.operator.connect_operator", connect)
    return scripted


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No config and no master of the developer's own."""
    for name in ("EDGERM_CONFIG", "EDGERM_MASTER", "EDGERM_INSECURE", "EDGERM_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("edgerm_core.cli.settings.CONFIG_PLACES", ())


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """Run the command line in this process; errors come out as they are."""

    def run(*args: str) -> Result:
        return CliRunner().invoke(edgerm, list(args), standalone_mode=False)

    return run
