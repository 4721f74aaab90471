"""The asynchronous face for operators and their tools: look, drain, forget, kill, read logs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from edgerm_core.client.link import Link
from edgerm_core.client.logs import LogPiece, StreamName, read_logs
from edgerm_core.client.session import CONNECT_TIMEOUT_S, ConnectionCallback, Session, open_session
from edgerm_core.errors import EdgermError
from edgerm_core.ids import AgentId, TaskId
from edgerm_core.limits import QUERY_DEFAULT_ROWS, QUERY_MAX_ROWS
from edgerm_core.messages import (
    OLDEST_PROTOCOL_VERSION,
    PROTOCOL_VERSION,
    Answer,
    AnyMessage,
    Done,
    Drain,
    Forget,
    Greet,
    KillTasks,
    Query,
)
from edgerm_core.plugins import Plugins

log = logging.getLogger(__name__)


class Operator:
    """A connected operator. Made by `connect_operator`.

    Each request is sent again after a lost connection; all of them may be repeated without harm.
    They raise RequestFailed if the master does not carry them out, TransportError if a connected
    master does not answer, RefusedError if it ended the session for good.

    Attributes:
        session: its session with the master.
    """

    session: Session

    async def query(self, kind: str, **args: Any) -> Answer:
        """Return the rows of a listing: `cluster`, `agents`, `frameworks`, `tasks`, `explain`, `story`.

        A long listing comes in several answers; what changes between them may be missing or twice.

        Parameters:
            args: narrow it down; each kind has its own, see `master/queries.py`.
        """
        answer = await self._ask(kind, args)
        wanted = min(args.get("limit") or QUERY_DEFAULT_ROWS, QUERY_MAX_ROWS)
        rows, more = answer.rows, bool(answer.rows)
        while more and len(rows) < min(wanted, answer.total - int(args.get("offset") or 0)):
            rest = {"limit": wanted - len(rows), "offset": int(args.get("offset") or 0) + len(rows)}
            answer = await self._ask(kind, {**args, **rest})
            rows, more = rows + answer.rows, bool(answer.rows)
        return Answer(answer.request_id, rows, answer.total)

    async def _ask(self, kind: str, args: dict[str, Any]) -> Answer:
        return await self.session.request(lambda request_id: Query(request_id, kind, args), Answer)

    async def drain(self, agent_id: str, *, undo: bool = False) -> None:
        """Give the agent no new tasks and move its tasks away; with `undo` let it work again."""
        await self.session.request(lambda request_id: Drain(request_id, AgentId(agent_id), undo), Done)

    async def forget(self, agent_id: str) -> None:
        """Declare an agent gone for good: its tasks are lost now, whatever their policy."""
        await self.session.request(lambda request_id: Forget(request_id, AgentId(agent_id)), Done)

    async def kill(self, task_ids: Sequence[TaskId], *, grace_s: float | None = None) -> None:
        """Ask for the end of tasks of any framework; ended ones are left alone."""
        await self.session.request(lambda request_id: KillTasks(request_id, tuple(task_ids), grace_s), Done)

    async def logs(
        self,
        task_id: TaskId,
        stream: StreamName = "stdout",
        *,
        follow: bool = False,
        tail_bytes: int | None = None,
        attempt: int = 0,
    ) -> AsyncIterator[LogPiece]:
        """Yield a task's log; see `logs.read_logs`."""
        async for piece in read_logs(
            self.session, task_id, stream, follow=follow, tail_bytes=tail_bytes, attempt=attempt
        ):
            yield piece

    # --- what the session calls ---------------------------------------------------------------

    def greeting(self) -> Greet:
        """See `Peer.greeting`."""
        return Greet((OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION))

    def on_message(self, message: AnyMessage) -> None:
        """See `Peer.on_message`."""
        log.debug("%s from the master was not expected here", type(message).__name__)

    async def on_link(self, link: Link) -> None:
        """See `Peer.on_link`: an operator holds nothing that a new connection must hear of."""

    def on_leaving(self, link: Link) -> None:
        """See `Peer.on_leaving`."""

    def on_failure(self, error: EdgermError) -> None:
        """See `Peer.on_failure`."""


@asynccontextmanager
async def connect_operator(
    url: str | None = None,
    *,
    insecure: bool = False,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    on_connection: ConnectionCallback | None = None,
    plugins: Plugins | None = None,
) -> AsyncIterator[Operator]:
    """Connect as an operator for as long as the block runs. Parameters as `connect_framework`.

    Raises:
        ConfigError, PluginError, TransportError, RefusedError, VersionError: as `connect_framework`.
    """
    operator = Operator()
    async with open_session(
        operator,
        url,
        insecure=insecure,
        connect_timeout_s=connect_timeout_s,
        on_connection=on_connection,
        plugins=plugins,
    ) as session:
        operator.session = session
        yield operator
