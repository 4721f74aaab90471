"""A notice wakes those who wait, once, and keeps nothing for those who do not."""

from __future__ import annotations

import anyio
import pytest

from edgerm_core.master.notice import Notice

pytestmark = pytest.mark.anyio


async def test_all_who_wait_are_woken_and_nobody_who_comes_later() -> None:
    notice = Notice()
    woken: list[str] = []

    async def wait(name: str) -> None:
        await notice.wait()
        woken.append(name)

    notice.give()  # Nobody waits: forgotten.
    async with anyio.create_task_group() as group:
        group.start_soon(wait, "first")
        group.start_soon(wait, "second")
        await anyio.wait_all_tasks_blocked()
        assert woken == []
        notice.give()
        group.start_soon(wait, "later")
        await anyio.wait_all_tasks_blocked()
        assert sorted(woken) == ["first", "second"]
        notice.give()
    assert woken[2:] == ["later"]


async def test_who_gives_up_waiting_takes_nothing_from_others() -> None:
    notice = Notice()
    with anyio.move_on_after(0.01):
        await notice.wait()
    woken = False

    async def wait() -> None:
        nonlocal woken
        await notice.wait()
        woken = True

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        notice.give()
    assert woken
