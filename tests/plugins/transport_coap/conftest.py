"""Shared by the tests of CoAP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .raw import UNHURRIED_S, Sessions


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A master answers when it has something to say, and not empty because that took more than 0.1 s."""
    monkeypatch.setattr("edgerm_transport_coap.resources.ANSWER_WAIT_S", UNHURRIED_S)


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    """A handler for `listening` that hands the sessions to the test."""
    sessions = Sessions()
    yield sessions
    sessions.close()
