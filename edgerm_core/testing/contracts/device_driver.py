"""The contract of device drivers: a suite to run over yours.

    class TestMyDriver(DeviceDriverContract):
        @pytest.fixture
        def driver(self) -> DeviceDriver:
            return MyDriver(...)   # with at least one device

Each test is one sentence of the docstrings of `DeviceDriver`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import anyio
import pytest

from edgerm_core.errors import ExecutorError
from edgerm_core.ids import TaskId
from edgerm_core.interfaces import Attachment, DeviceDriver, Fence
from edgerm_core.resources import Device
from edgerm_core.tasks import Reason
from edgerm_core.testing.contracts.asynchronous import AsyncContract

PATIENCE_S: Final = 30.0
"""No single wait of the suite is longer."""

ABSENT: Final = "no-such-device"
TASK: Final = TaskId(7)


class DeviceDriverContract(AsyncContract):
    """Subclass it, name the subclass `Test…`, and override `driver`."""

    @pytest.fixture
    def driver(self) -> DeviceDriver:
        """A driver with at least one healthy device."""
        raise NotImplementedError

    @pytest.fixture
    async def devices(self, driver: DeviceDriver) -> AsyncIterator[tuple[Device, ...]]:
        """What the driver finds; closes the driver afterwards."""
        with anyio.fail_after(PATIENCE_S):
            found = await anext(aiter(driver.discover()))
        yield found
        await driver.close()

    @pytest.fixture
    def device(self, devices: tuple[Device, ...]) -> Device:
        return next(device for device in devices if device.healthy)

    async def test_it_yields_its_devices_at_once(self, devices: tuple[Device, ...]) -> None:
        assert devices
        assert all(device.type and device.slots >= 1 for device in devices)

    async def test_the_ids_of_its_devices_are_unique(self, devices: tuple[Device, ...]) -> None:
        assert len({device.id for device in devices}) == len(devices)

    async def test_discovery_goes_on_until_cancelled(self, driver: DeviceDriver) -> None:
        with anyio.move_on_after(0.05) as scope:
            async for _ in driver.discover():
                pass
        assert scope.cancelled_caught, "discovery ended by itself"

    async def test_discovery_can_begin_again_after_it_was_cancelled(
        self, driver: DeviceDriver, devices: tuple[Device, ...]
    ) -> None:
        for _ in range(2):
            with anyio.move_on_after(0.05):
                async for _found in driver.discover():
                    pass
        with anyio.fail_after(PATIENCE_S):
            found = await anext(aiter(driver.discover()))
        assert {device.id for device in found} == {device.id for device in devices}

    async def test_a_run_gets_an_attachment(self, driver: DeviceDriver, device: Device) -> None:
        attachment = await driver.reserve(device.id, TASK, Fence(1))
        assert isinstance(attachment, Attachment)
        for name, value in attachment.env.items():
            assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name), f"{name!r} is no environment variable"
            assert isinstance(value, str), f"{name} is {value!r}, expected text"
        for path in (*attachment.device_nodes, *attachment.mounts):
            assert path.startswith("/"), f"{path} is no path on the machine"

    async def test_reserving_again_with_the_same_fence_changes_nothing(
        self, driver: DeviceDriver, device: Device
    ) -> None:
        for number in range(device.slots):
            first = await driver.reserve(device.id, TaskId(100 + number), Fence(1))
            assert await driver.reserve(device.id, TaskId(100 + number), Fence(1)) == first

    async def test_a_device_that_is_not_there_is_refused_with_its_reason(
        self, driver: DeviceDriver, device: Device
    ) -> None:
        with pytest.raises(ExecutorError) as caught:
            await driver.reserve(ABSENT, TASK, Fence(1))
        assert caught.value.reason == Reason.RESOURCES_UNAVAILABLE
        assert ABSENT in str(caught.value)

    async def test_no_more_tasks_than_slots_get_a_device(
        self, driver: DeviceDriver, device: Device
    ) -> None:
        for number in range(device.slots):
            await driver.reserve(device.id, TaskId(100 + number), Fence(1))
        with pytest.raises(ExecutorError) as caught:
            await driver.reserve(device.id, TaskId(99), Fence(1))
        assert caught.value.reason == Reason.RESOURCES_UNAVAILABLE

    async def test_a_released_slot_can_be_had_again(self, driver: DeviceDriver, device: Device) -> None:
        for number in range(device.slots):
            await driver.reserve(device.id, TaskId(100 + number), Fence(1))
        await driver.release(device.id, TaskId(100), Fence(1))
        await driver.reserve(device.id, TaskId(99), Fence(1))

    async def test_another_task_cannot_release_a_slot(self, driver: DeviceDriver, device: Device) -> None:
        for number in range(device.slots):
            await driver.reserve(device.id, TaskId(100 + number), Fence(1))
        await driver.release(device.id, TaskId(99), Fence(1))
        with pytest.raises(ExecutorError):
            await driver.reserve(device.id, TaskId(99), Fence(1))

    async def test_a_newer_run_takes_the_slot_of_an_older_one(
        self, driver: DeviceDriver, device: Device
    ) -> None:
        for number in range(device.slots):
            await driver.reserve(device.id, TaskId(100 + number), Fence(1))
        await driver.reserve(device.id, TaskId(100), Fence(2))

    @pytest.mark.parametrize("older", [Fence(1, 9), Fence(2, 0)])
    async def test_an_older_run_is_fenced_out(
        self, driver: DeviceDriver, device: Device, older: Fence
    ) -> None:
        await driver.reserve(device.id, TASK, Fence(2, 1))
        with pytest.raises(ExecutorError) as caught:
            await driver.reserve(device.id, TASK, older)
        assert caught.value.reason == Reason.RESOURCES_UNAVAILABLE

    async def test_a_fence_is_for_its_own_task(self, driver: DeviceDriver, device: Device) -> None:
        await driver.reserve(device.id, TASK, Fence(5))
        await driver.release(device.id, TASK, Fence(5))
        await driver.reserve(device.id, TaskId(99), Fence(1))

    async def test_an_older_run_stays_fenced_out_after_the_newer_one_released(
        self, driver: DeviceDriver, device: Device
    ) -> None:
        await driver.reserve(device.id, TASK, Fence(2))
        await driver.release(device.id, TASK, Fence(2))
        with pytest.raises(ExecutorError):
            await driver.reserve(device.id, TASK, Fence(1))

    async def test_an_older_run_cannot_release_what_a_newer_one_holds(
        self, driver: DeviceDriver, device: Device
    ) -> None:
        for number in range(device.slots):
            await driver.reserve(device.id, TaskId(100 + number), Fence(1))
        await driver.reserve(device.id, TaskId(100), Fence(2))
        await driver.release(device.id, TaskId(100), Fence(1))
        with pytest.raises(ExecutorError):
            await driver.reserve(device.id, TaskId(99), Fence(1))

    async def test_releasing_is_idempotent_and_never_raises(
        self, driver: DeviceDriver, device: Device
    ) -> None:
        await driver.release(device.id, TASK, Fence(1))
        await driver.release(device.id, TASK, Fence(1))
        await driver.release(ABSENT, TASK, Fence(1))

    # --- channels: whoever has none says so, or raises what DeviceDriver raises ---

    async def test_a_channel_that_is_named_has_a_value(
        self, driver: DeviceDriver, devices: tuple[Device, ...]
    ) -> None:
        for device in devices:
            for channel in device.channels if device.healthy else ():
                with anyio.fail_after(PATIENCE_S), suppress(NotImplementedError):
                    value = await driver.read(device.id, channel)
                    assert isinstance(value, float | int | str), f"{device.id}.{channel} is {value!r}"

    async def test_what_is_not_there_cannot_be_read(self, driver: DeviceDriver, device: Device) -> None:
        channel = next(iter(device.channels), "value")
        for device_id, name in ((ABSENT, channel), (device.id, ABSENT)):
            with anyio.fail_after(PATIENCE_S), pytest.raises((ExecutorError, NotImplementedError)):
                await driver.read(device_id, name)

    async def test_an_older_run_cannot_write(
        self, driver: DeviceDriver, devices: tuple[Device, ...]
    ) -> None:
        for device in devices:
            if not device.healthy:
                continue
            await driver.reserve(device.id, TASK, Fence(2))
            for channel in device.channels or ("value",):
                with anyio.fail_after(PATIENCE_S), pytest.raises((ExecutorError, NotImplementedError)):
                    await driver.write(device.id, channel, 1.0, TASK, Fence(1))

    async def test_closing_is_idempotent(self, driver: DeviceDriver) -> None:
        await driver.close()
        await driver.close()
