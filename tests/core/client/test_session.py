"""Backoff, requests that nobody answers, and what may be tried again."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.client import link as link_module
from edgerm_core.client.session import REQUEST_ATTEMPTS, backoff_s, resolve_url, retryable
from edgerm_core.config import DEFAULT_URL
from edgerm_core.errors import (
    ConnectionClosed,
    DecodeError,
    EdgermError,
    RefusedError,
    TransportError,
    VersionError,
)
from edgerm_core.ids import TaskId
from edgerm_core.limits import RECONNECT_BASE_S, RECONNECT_MAX_S
from edgerm_core.messages import Submit, Subscribed, TaskUpdate
from edgerm_core.tasks import TaskState
from tests.core.client.conftest import HELLO, ScriptedMaster, connected, doing


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_stays_below_its_doubling_ceiling(failures: int, unit: float) -> None:
    delay = backoff_s(failures, unit)
    assert 0 <= delay <= RECONNECT_MAX_S
    if failures <= 1:
        assert delay <= RECONNECT_BASE_S


def test_backoff_reaches_the_limit() -> None:
    assert backoff_s(50, 0.999) > 0.99 * RECONNECT_MAX_S


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionClosed("x"), True),
        (DecodeError("x"), True),
        (RefusedError("slow", "x"), True),
        (RefusedError("removed", "x"), False),
        (RefusedError("session-replaced", "x"), False),
        (VersionError("x"), False),
    ],
)
def test_what_is_tried_again(error: EdgermError, again: bool) -> None:
    assert retryable(error) is again


def test_the_url_comes_from_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGERM_MASTER", raising=False)
    assert resolve_url(None, False) == DEFAULT_URL
    monkeypatch.setenv("EDGERM_MASTER", "ws://192.0.2.1:7070")
    assert resolve_url(None, insecure=True) == "ws://192.0.2.1:7070"
    assert resolve_url("ws://localhost:1", False) == "ws://localhost:1"


@pytest.mark.anyio
async def test_a_dead_connection_is_dropped_and_the_request_sent_again(
    master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch, pass_time: Callable[[float], None]
) -> None:
    monkeypatch.setattr(link_module, "REQUEST_TIMEOUT_S", 8.0)
    async with connected(master) as (framework, peer), doing(lambda: framework.submit(HELLO)) as call:
        for _ in range(REQUEST_ATTEMPTS - 1):
            await peer.expect(Submit)
            pass_time(8.0)
            peer = await master.accept_framework()
        await peer.expect(Submit)
        pass_time(8.0)
        with pytest.raises(TransportError, match="did not answer Submit"):
            await call.value()


@pytest.mark.anyio
async def test_a_living_master_that_leaves_one_request_unanswered_keeps_its_connection(
    master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch, pass_time: Callable[[float], None]
) -> None:
    monkeypatch.setattr(link_module, "REQUEST_TIMEOUT_S", 8.0)
    async with connected(master) as (framework, peer), doing(lambda: framework.submit(HELLO)) as call:
        await peer.expect(Submit)
        await peer.send(TaskUpdate(TaskId(99), 1, TaskState.RUNNING))
        await anyio.wait_all_tasks_blocked()  # It has come.
        pass_time(8.0)
        with pytest.raises(TransportError, match="did not answer Submit"):
            await call.value()
        await peer.expect_nothing()


@pytest.mark.anyio
async def test_an_unknown_protocol_version_ends_the_session(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        await peer.drop()
        peer = await master.accept()
        await peer.send(Subscribed(99, True))
        with pytest.raises(VersionError, match="install matching versions"):
            await framework.submit(HELLO)
