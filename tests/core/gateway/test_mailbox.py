"""What waits for a device: the newest order counts, and there is a limit."""

from __future__ import annotations

import pytest

from edgerm_core.codec import decode_batch, encode
from edgerm_core.gateway.mailbox import Mailbox
from edgerm_core.ids import FrameworkId, TaskId, blob_id
from edgerm_core.limits import MAX_BLOB_REQUESTS, MAX_MESSAGE_BYTES
from edgerm_core.messages import (
    Acknowledge,
    AnyMessage,
    BlobData,
    Failed,
    HeartbeatAck,
    Kill,
    Launch,
    LogGet,
    LogStream,
    Registered,
)
from edgerm_core.tasks import Implementation

T1, T2 = TaskId(1), TaskId(2)


def a_launch(task_id: TaskId = T1, attempt: int = 1, **fields: object) -> Launch:
    return Launch(task_id, attempt, FrameworkId("f"), "job", Implementation("test"), **fields)  # type: ignore[arg-type]


def everything(mailbox: Mailbox) -> list[AnyMessage]:
    found: list[AnyMessage] = []
    while (frame := mailbox.take(MAX_MESSAGE_BYTES)) is not None:
        found += decode_batch(frame)
    assert (len(mailbox), mailbox.waiting_bytes) == (0, 0)
    return found


@pytest.mark.parametrize(
    ("put", "left"),
    [
        ([a_launch(), a_launch()], [a_launch()]),
        ([a_launch(), a_launch(attempt=2)], [a_launch(attempt=2)]),
        ([a_launch(attempt=2), a_launch()], [a_launch(attempt=2)]),
        ([a_launch(), Kill(T1, 1)], [Kill(T1, 1)]),
        ([Kill(T1, 1), a_launch()], [Kill(T1, 1)]),
        ([Kill(T1, 1), a_launch(attempt=2)], [Kill(T1, 1), a_launch(attempt=2)]),
        ([a_launch(attempt=2), Kill(T1, 1)], [a_launch(attempt=2), Kill(T1, 1)]),
        ([Kill(T1, 1, 5.0), Kill(T1, 1, 0.0)], [Kill(T1, 1, 0.0)]),
        ([Kill(T1, 2), Kill(T1, 1)], [Kill(T1, 2)]),
        ([a_launch(), a_launch(T2), Kill(T2, 1)], [a_launch(), Kill(T2, 1)]),
        ([Acknowledge(T1, 1, 2), Acknowledge(T1, 1, 1)], [Acknowledge(T1, 1, 2)]),
        ([Acknowledge(T1, 1, 1), Acknowledge(T1, 1, 2)], [Acknowledge(T1, 1, 2)]),
        ([HeartbeatAck(), HeartbeatAck()], [HeartbeatAck()]),
        ([HeartbeatAck(20.0, 65.0), HeartbeatAck()], [HeartbeatAck(20.0, 65.0)]),
        ([HeartbeatAck(), HeartbeatAck(20.0, 65.0)], [HeartbeatAck(20.0, 65.0)]),
        ([HeartbeatAck(20.0, 65.0, 5.0), HeartbeatAck(away_s=9.0)], [HeartbeatAck(20.0, 65.0, 9.0)]),
        ([HeartbeatAck(away_s=9.0), HeartbeatAck()], [HeartbeatAck()]),
        ([a_launch(), Registered(1, 1.0, 2.0)], [Registered(1, 1.0, 2.0), a_launch()]),
        (
            [LogGet(5, T1, LogStream.STDOUT), LogGet(5, TaskId(0), LogStream.STDOUT, cancel=True)],
            [],
        ),
    ],
)
def test_of_orders_that_wait_together_the_newest_counts(
    put: list[AnyMessage], left: list[AnyMessage]
) -> None:
    mailbox = Mailbox()
    assert all(mailbox.put(message) for message in put)  # type: ignore[arg-type]
    assert everything(mailbox) == left


def test_a_frame_holds_what_fits_and_the_rest_waits() -> None:
    mailbox = Mailbox()
    kills = [Kill(TaskId(number), 1) for number in range(1, 4)]
    for kill in kills:
        mailbox.put(kill)
    size = len(encode(kills[0]))
    assert mailbox.take(2 * size) == encode(kills[0]) + encode(kills[1])
    assert mailbox.take(2 * size) == encode(kills[2])
    assert mailbox.take(2 * size) is None


def test_mail_that_fits_into_no_frame_is_left_out() -> None:
    mailbox = Mailbox()
    mailbox.put(a_launch(env={"A": "x" * 500}))
    mailbox.put(Kill(T2, 1))
    assert mailbox.take(100) == encode(Kill(T2, 1))
    assert len(mailbox) == 0


@pytest.mark.parametrize(("limit", "value"), [("MAILBOX_MESSAGES", 2), ("MAILBOX_BYTES", 11)])
def test_there_is_room_for_so_much(limit: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"edgerm_core.gateway.mailbox.{limit}", value)
    mailbox = Mailbox()
    assert mailbox.put(Kill(T1, 1))
    assert mailbox.put(Kill(T2, 1))
    assert not mailbox.put(Kill(TaskId(3), 1))
    assert mailbox.put(Kill(T1, 1)), "it takes the place of the one that waits"
    assert mailbox.put(Registered(1, 1.0, 2.0)), "without which nothing else makes sense"
    assert len(everything(mailbox)) == 3


def test_pieces_of_blobs_have_a_limit_of_their_own() -> None:
    mailbox = Mailbox()
    pieces = [BlobData(number, blob_id(b""), 0, 0, b"") for number in range(MAX_BLOB_REQUESTS + 1)]
    assert [mailbox.put(piece) for piece in pieces] == [True] * MAX_BLOB_REQUESTS + [False]
    mailbox.take(MAX_MESSAGE_BYTES)
    assert mailbox.put(Failed(1, "not-found", "no such blob"))


def test_only_orders_and_acknowledgements_outlive_the_connection() -> None:
    mailbox = Mailbox()
    for message in (
        Registered(1, 1.0, 2.0),
        HeartbeatAck(),
        a_launch(),
        LogGet(5, T1, LogStream.STDOUT),
        BlobData(1, blob_id(b""), 0, 0, b""),
        Acknowledge(T2, 1, 1),
    ):
        mailbox.put(message)
    mailbox.connection_ended()
    assert everything(mailbox) == [a_launch(), Acknowledge(T2, 1, 1)]
