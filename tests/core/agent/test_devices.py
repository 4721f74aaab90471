"""Drivers that misbehave, and devices that come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from edgerm_core.agent import devices as devices_module
from edgerm_core.agent.devices import Devices
from edgerm_core.errors import ExecutorError
from edgerm_core.ids import TaskId
from edgerm_core.interfaces import Attachment, DeviceDriver, Fence
from edgerm_core.resources import Device

pytestmark = pytest.mark.anyio

LED = Device("led0", "led")
CAM = Device("cam0", "camera")


class ScriptedDriver(DeviceDriver):
    """Finds what the test puts into `found`; an exception ends its discovery."""

    name = "scripted"

    def __init__(self, *found: tuple[Device, ...] | Exception) -> None:
        self.send, self._receive = anyio.create_memory_object_stream[tuple[Device, ...] | Exception](10)
        self.held: set[str] = set()
        for each in found:
            self.send.send_nowait(each)

    async def discover(self) -> AsyncIterator[tuple[Device, ...]]:
        while True:
            found = await self._receive.receive()
            if isinstance(found, Exception):
                raise found
            yield found

    async def reserve(self, device_id: str, task_id: TaskId, fence: Fence) -> Attachment:
        if device_id == "cam0":
            raise ZeroDivisionError("oops")
        self.held.add(device_id)
        return Attachment({device_id.upper(): "1"})

    async def release(self, device_id: str, task_id: TaskId, fence: Fence) -> None:
        self.held.discard(device_id)

    async def close(self) -> None:
        await self.send.aclose()
        await self._receive.aclose()


class Watched:
    """Counts the changes and lets a test wait for the next one."""

    def __init__(self) -> None:
        self.changed = anyio.Event()

    def __call__(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


async def test_the_first_discovery_is_waited_for() -> None:
    driver = ScriptedDriver((LED, CAM))
    devices = Devices({"scripted": driver}, lambda: None)
    async with anyio.create_task_group() as tasks:
        await devices.discover(tasks)
        tasks.cancel_scope.cancel()
    assert devices.all() == (CAM, LED)
    await devices.close()


async def test_a_driver_that_fails_loses_its_devices_until_it_works_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices_module, "DISCOVER_AGAIN_S", 0.01)
    driver, watched = ScriptedDriver((LED,)), Watched()
    devices = Devices({"scripted": driver}, watched)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            await devices.discover(tasks)
            driver.send.send_nowait(ZeroDivisionError("oops"))
            await watched.changed.wait()
            assert devices.all() == ()
            driver.send.send_nowait((LED,))
            await watched.changed.wait()
            assert devices.all() == (LED,)
            tasks.cancel_scope.cancel()
    await devices.close()


async def test_if_one_device_cannot_be_had_none_is_held() -> None:
    driver = ScriptedDriver((LED, Device("a-led", "led"), CAM))
    devices = Devices({"scripted": driver}, lambda: None)
    async with anyio.create_task_group() as tasks:
        await devices.discover(tasks)
        tasks.cancel_scope.cancel()
    with pytest.raises(ExecutorError, match=r"driver scripted failed to hand out cam0: ZeroDiv.*oops"):
        await devices.reserve(["led0", "a-led", "cam0"], TaskId(1), Fence(1))
    with pytest.raises(ExecutorError, match="gone0 is no longer there"):
        await devices.reserve(["a-led", "gone0"], TaskId(1), Fence(1))
    assert driver.held == set()
    await devices.close()


async def test_a_device_that_has_vanished_is_released_all_the_same() -> None:
    driver, watched = ScriptedDriver((LED,)), Watched()
    devices = Devices({"scripted": driver}, watched)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            await devices.discover(tasks)
            await devices.reserve(["led0"], TaskId(1), Fence(1))
            driver.send.send_nowait(())
            await watched.changed.wait()
            tasks.cancel_scope.cancel()
    await devices.release(["led0"], TaskId(1), Fence(1))
    assert driver.held == set()
    await devices.close()


class HangingDriver(ScriptedDriver):
    """Never answers."""

    async def reserve(self, device_id: str, task_id: TaskId, fence: Fence) -> Attachment:
        if device_id == "led0":
            await anyio.sleep_forever()
        if device_id == "none0":
            return None  # type: ignore[return-value]
        return Attachment()

    async def release(self, device_id: str, task_id: TaskId, fence: Fence) -> None:
        await anyio.sleep_forever()

    async def close(self) -> None:
        await super().close()
        await anyio.sleep_forever()


async def test_a_driver_that_hangs_or_returns_nonsense_is_named_and_given_up_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices_module, "DRIVER_TIMEOUT_S", 0.01)
    devices = Devices(
        {"hanging": HangingDriver((LED, Device("none0", "x"), Device("a", "x")))}, lambda: None
    )
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            await devices.discover(tasks)
            tasks.cancel_scope.cancel()
        with pytest.raises(ExecutorError, match=r"scripted did not hand out led0 within 0\.01 s"):
            await devices.reserve(["led0"], TaskId(1), Fence(1))
        with pytest.raises(ExecutorError, match="returned NoneType, expected Attachment"):
            await devices.reserve(["none0"], TaskId(1), Fence(1))
        await devices.reserve(["a"], TaskId(1), Fence(1))
        await devices.release(["a"], TaskId(1), Fence(1))
        await devices.close()
    assert "device driver scripted did not release a in time" in caplog.text
    assert "device driver hanging did not close in time" in caplog.text
