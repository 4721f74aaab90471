"""Shared by the tests of CoAP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .raw import Sessions


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    """A handler for `listening` that hands the sessions to the test."""
    sessions = Sessions()
    yield sessions
    sessions.close()
