"""Requests that wait are looked at once, in time; repeated ones are known for a while."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from edgerm_transport_coap.config import EXCHANGE_LIFETIME_S, RECENT_OPENINGS
from edgerm_transport_coap.message import POST, Message, Options
from edgerm_transport_coap.request import Recent, Request, Waiting

pytestmark = pytest.mark.anyio


class Recorded(Request):
    """A request that notes what becomes of it."""

    peer = "test://1"
    local = True
    room: int | None = None
    identity = None
    payload_bytes = 1024

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(Message(POST, options), "here")
        self.done: list[str] = []
        self.answer = Message(0)

    def respond(self, code: int, options: Options | None = None, payload: bytes = b"") -> None:
        self.answered = True
        self.answer = Message(code, options, payload)

    def respond_proving(
        self, code: int, options: Options, payload: bytes, on_proven: Callable[[], None]
    ) -> None:
        self.done.append("proving")
        self.respond(code, options, payload)

    def prove(self, on_end: Callable[[str], None]) -> Callable[[], None]:
        self.done.append("pinged")
        return self.stop

    def acknowledge(self) -> None:
        self.done.append("acknowledged")

    def notify(
        self, code: int, options: Options, payload: bytes, on_end: Callable[[str], None]
    ) -> Callable[[], None]:
        return self.stop

    def stop(self) -> None:
        self.done.append("stopped")


async def test_a_request_without_answer_is_told_and_then_acknowledged() -> None:
    waiting = Waiting(0.02)
    silent, answering, answered = Recorded(), Recorded(), Recorded()
    silent.on_late = lambda request: silent.done.append("late")
    answering.on_late = lambda request: request.respond(0x44)
    for request in (silent, answering, answered):
        waiting.add(request)
    answered.respond(0x44)
    await anyio.sleep(0.06)
    assert silent.done == ["late", "acknowledged"]
    assert answering.done == answered.done == []
    later = Recorded()
    waiting.add(later)
    await anyio.sleep(0.06)
    assert later.done == ["acknowledged"]
    assert silent.done == ["late", "acknowledged"]


async def test_nothing_is_looked_at_after_closing() -> None:
    waiting = Waiting(0.01)
    request = Recorded()
    waiting.add(request)
    waiting.close()
    await anyio.sleep(0.03)
    assert request.done == []


def test_what_is_known_is_limited_in_number_and_age() -> None:
    recent = Recent()
    for number in range(RECENT_OPENINGS + 1):
        recent.add(number, f"session {number}", now=0.0)
    assert recent.get(0, 1.0) is None
    assert recent.get(1, 1.0) == "session 1"
    assert recent.get(1, EXCHANGE_LIFETIME_S) is None
    recent.add("later", "session", now=EXCHANGE_LIFETIME_S)
    assert len(recent) == 1  # Nothing keeps what is too old.
