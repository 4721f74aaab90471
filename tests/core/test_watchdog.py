"""An event loop that does not turn is noticed from outside, and who keeps it is named."""

from __future__ import annotations

import inspect
import logging
import time

import anyio
import pytest

from edgerm_core.watchdog import describe, watch_loop

pytestmark = pytest.mark.anyio

BLOCKED_S = 0.4
"""Longer than other processes keep the loop's thread from its core while the watchdog's has one."""


def of_this_file(module: str) -> str:
    return "culprit" if module == __name__ else ""


async def test_a_call_that_does_not_return_is_named_once_while_it_lasts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    async with anyio.create_task_group() as group:
        group.start_soon(watch_loop, of_this_file, BLOCKED_S)
        await anyio.wait_all_tasks_blocked()
        end = time.monotonic() + 20
        while not caplog.messages and time.monotonic() < end:
            time.sleep(0.01)  # noqa: ASYNC251 - This is what is to be noticed.
        time.sleep(2 * BLOCKED_S)  # noqa: ASYNC251
        assert len(caplog.messages) == 1
        (message,) = caplog.messages
        assert "blocked for 0.4 s by plugin culprit" in message
        assert f"in {__file__}:" in message
        assert '[plugins] disable = ["culprit"]' in message
        group.cancel_scope.cancel()


async def test_a_loop_that_turns_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with anyio.move_on_after(4 * BLOCKED_S):
        await watch_loop(of_this_file, 3 * BLOCKED_S)
    assert caplog.messages == []


async def test_without_a_plugin_the_innermost_code_is_named() -> None:
    text = describe(inspect.currentframe(), lambda module: "")
    assert text.startswith("test_without_a_plugin_the_innermost_code_is_named in ")
    assert describe(None, lambda module: "") == "something unknown"
