"""One timer tells who has been silent for too long, and nobody else."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from edgerm_transport_coap.silence import Silence

from .raw import PATIENCE_S

pytestmark = pytest.mark.anyio


class Somebody:
    def __init__(self, timeout_s: float) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        self.timeout_s = timeout_s


class Site:
    """Takes out who is silent, and notes it."""

    def __init__(self, *timeouts_s: float) -> None:
        self.there = [Somebody(timeout_s) for timeout_s in timeouts_s]
        self.gone: list[Somebody] = []
        self.somebody_went = anyio.Event()
        self.silence = Silence(lambda: self.there, self.on_silent)

    def on_silent(self, one: Somebody) -> None:
        assert one.heard_at + one.timeout_s <= asyncio.get_running_loop().time()
        self.there.remove(one)
        self.gone.append(one)
        self.somebody_went.set()
        self.somebody_went = anyio.Event()

    async def wait_gone(self, count: int) -> None:
        with anyio.fail_after(PATIENCE_S):
            while len(self.gone) < count:
                await self.somebody_went.wait()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgerm_transport_coap.silence.LOOK_S", 0.01)


async def test_each_has_a_timeout_of_its_own() -> None:
    site = Site(0.2, 3600, 0.1)
    late, patient, early = site.there
    for one in site.there:
        site.silence.expect(one.timeout_s)
    await site.wait_gone(2)
    assert set(site.gone) == {early, late}  # In any order if nobody could look for a while.
    assert site.there == [patient]
    site.silence.close()


async def test_who_comes_later_with_a_shorter_timeout_is_not_forgotten() -> None:
    site = Site(3600)
    site.silence.expect(3600)
    site.there.append(Somebody(0.05))
    site.silence.expect(0.05)
    await site.wait_gone(1)
    site.silence.close()


async def test_who_has_been_heard_meanwhile_is_waited_for_again() -> None:
    site = Site(0.1, 0.1)
    silent, lively = site.there
    site.silence.expect(0.1)
    lively.heard_at += 0.2
    await site.wait_gone(2)
    assert site.gone == [silent, lively]  # None before its time: see `on_silent`.
    site.silence.close()


async def test_however_many_there_are_there_is_one_timer() -> None:
    loop = asyncio.get_running_loop()
    site = Site(*range(1000, 2000))
    timers = 0
    call_at = loop.call_at

    def counted(when: float, *rest: object) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_at(when, *rest)  # type: ignore[arg-type]

    loop.call_at = counted  # type: ignore[method-assign, assignment]
    for one in site.there:
        site.silence.expect(one.timeout_s)
    assert timers == 1
    site.silence.close()


async def test_nobody_is_looked_at_after_closing() -> None:
    site = Site(0.01)
    site.silence.expect(0.01)
    site.silence.close()
    site.silence.close()
    await anyio.sleep(0.05)
    assert site.gone == []
