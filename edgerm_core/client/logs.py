"""Reading a task's log: in order, resumed after a lost connection, with gaps marked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Literal

import anyio

from edgerm_core.client.link import Link, Unanswered
from edgerm_core.client.mailbox import Mailbox
from edgerm_core.client.session import Session, failed_as_error
from edgerm_core.errors import ConnectionClosed, RequestFailed
from edgerm_core.ids import TaskId, format_task_id
from edgerm_core.limits import REQUEST_TIMEOUT_S
from edgerm_core.messages import Failed, LogData, LogGet, LogStream, RefusalCode

PATIENCE_S: Final = 60.0
"""A log that was being followed is asked for again for so long when its agent is away: as long as a
restarted master gives everybody to come back."""

RETRY_S: Final = 1.0
"""How often it is asked for meanwhile."""

StreamName = Literal["stdout", "stderr", "both"]

_STREAMS = {
    "stdout": (LogStream.STDOUT,),
    "stderr": (LogStream.STDERR,),
    "both": (LogStream.STDOUT, LogStream.STDERR),
}


class LogPiece(bytes):
    """A piece of a log: plain bytes that also know where they come from.

    Attributes:
        stream: which of the task's outputs.
        offset: of its first byte, counted from the first byte the task wrote.
        missed_bytes: how many bytes before this piece are gone because the ring on the agent
            dropped them; 0: none.
    """

    stream: LogStream
    offset: int
    missed_bytes: int

    @classmethod
    def make(cls, data: bytes, stream: LogStream, offset: int, missed_bytes: int) -> LogPiece:
        """Return the piece."""
        piece = cls(data)
        piece.stream = stream
        piece.offset = offset
        piece.missed_bytes = missed_bytes
        return piece


class _Cursor:
    """How far one stream has been read."""

    def __init__(self, stream: LogStream, offset: int) -> None:
        self.stream = stream
        self.offset = offset
        self.ended = False

    def take(self, data: LogData) -> LogPiece | None:
        """Return what is new in `data`; None if nothing is."""
        self.ended = data.end and not data.problem
        if self.offset < 0:
            # The first answer to "the last n bytes" says where that is.
            self.offset = data.offset
        repeated = max(0, self.offset - data.offset)
        fresh = data.data[repeated:]
        if not fresh:
            return None
        start = data.offset + repeated
        piece = LogPiece.make(fresh, self.stream, start, start - self.offset)
        self.offset = start + len(fresh)
        return piece


async def read_logs(
    session: Session,
    task_id: TaskId,
    stream: StreamName = "stdout",
    *,
    follow: bool = False,
    tail_bytes: int | None = None,
    attempt: int = 0,
) -> AsyncIterator[LogPiece]:
    """Yield a task's log in pieces; `both` yields pieces of the two streams as they come.

    When the connection is lost it goes on at the offset it had reached. A reader that is too slow
    misses nothing that the agent's ring still holds; what it no longer holds is counted in
    `missed_bytes` of the next piece. While following, an agent that goes away is waited for, up to
    `PATIENCE_S`. Cancel-safe.

    Parameters:
        follow: go on as the log grows, until the task ends; otherwise stop at its present end.
        tail_bytes: start that many bytes before the present end; None: at the oldest byte kept.
        attempt: whose log; 0: the latest attempt's.

    Raises:
        RequestFailed: if there is no such log, or its agent is away.
        TransportError: if a connected master does not answer.
        EdgermError: if the session is over for good.
    """
    start = 0 if tail_bytes is None else -tail_bytes
    cursors = [_Cursor(s, start) for s in _STREAMS[stream]]
    if tail_bytes == 0 and not follow:
        return
    patient_until = 0.0
    while pending := [cursor for cursor in cursors if not cursor.ended]:
        link = await session.link()
        problem = ""
        with link.mailbox(len(pending)) as (box, ids):
            by_id = dict(zip(ids, pending, strict=True))
            unfinished = set(ids)
            try:
                for request_id, cursor in by_id.items():
                    await link.send(
                        LogGet(request_id, task_id, cursor.stream, cursor.offset, follow, attempt=attempt)
                    )
                while unfinished and not problem:
                    data = await _next(link, box, follow)
                    if data is None:
                        break
                    piece = by_id[data.request_id].take(data)
                    problem = data.problem
                    if data.end:
                        unfinished.discard(data.request_id)
                    if piece is not None:
                        patient_until = anyio.current_time() + PATIENCE_S
                        yield piece
            except ConnectionClosed:
                # And on again from where the cursors stand, with the next connection.
                patient_until = anyio.current_time() + PATIENCE_S
            finally:
                for request_id in unfinished:
                    link.post(LogGet(request_id, task_id, by_id[request_id].stream, cancel=True))
        if problem:
            if not follow or anyio.current_time() >= patient_until:
                raise RequestFailed(
                    RefusalCode.NOT_FOUND, f"log of task {format_task_id(task_id)}: {problem}"
                )
            await anyio.sleep(RETRY_S)


async def _next(link: Link, box: Mailbox, follow: bool) -> LogData | None:
    """Return the next piece; None if the reader was too slow and must ask again."""
    with anyio.move_on_after(None if follow else REQUEST_TIMEOUT_S):
        answer = await box.get()
        if isinstance(answer, Failed):
            raise failed_as_error(answer)
        assert answer is None or isinstance(answer, LogData)
        return answer
    raise Unanswered(
        f"no log came within {REQUEST_TIMEOUT_S:g} s; the task's agent may be away", silent=False
    )
