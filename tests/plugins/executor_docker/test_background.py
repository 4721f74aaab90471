"""What goes on between calls ends with the executor, and harms nothing when it fails."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from edgerm_executor_docker.background import Background

pytestmark = pytest.mark.anyio


async def test_all_end_with_it() -> None:
    background = Background()
    ended: list[int] = []

    async def work(number: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(number)

    for number in range(3):
        background.spawn(work(number))
    await anyio.lowlevel.checkpoint()
    await background.close()
    await background.close()
    assert sorted(ended) == [0, 1, 2]


async def test_failure_is_logged_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    background = Background()
    done = anyio.Event()

    async def fails() -> None:
        raise ValueError("broken on purpose")

    async def works() -> None:
        await anyio.sleep(0.01)
        done.set()

    background.spawn(fails())
    background.spawn(works())
    with anyio.fail_after(30):
        await done.wait()
    await background.close()
    assert "broken on purpose" in caplog.text
