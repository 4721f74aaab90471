"""The devices of an agent: found by drivers, handed to runs, taken back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import anyio
import anyio.abc

from edgerm_core.errors import ExecutorError
from edgerm_core.ids import TaskId
from edgerm_core.interfaces import Attachment, DeviceDriver, Fence
from edgerm_core.resources import Device
from edgerm_core.tasks import Reason

log = logging.getLogger(__name__)

FIRST_DISCOVERY_S: Final = 2.0
"""How long the first registration waits for drivers; slower ones follow in an Inventory."""

DISCOVER_AGAIN_S: Final = 30.0
"""Before a driver whose discovery failed is asked again."""

DRIVER_TIMEOUT_S: Final = 30.0
"""A driver that takes longer to hand out a device, to take it back or to close, hangs."""


class Devices:
    """All devices.

    Parameters:
        drivers: by name.
        changed: called after the devices have changed.
    """

    def __init__(self, drivers: Mapping[str, DeviceDriver], changed: Callable[[], None]) -> None:
        self._drivers = drivers
        self._changed = changed
        self._found: dict[str, tuple[Device, ...]] = {}
        self._discovered = anyio.Event()
        self._holders: dict[tuple[str, TaskId, Fence], DeviceDriver] = {}

    def all(self) -> tuple[Device, ...]:
        """Return every device, sorted by id. Of two with one id, the first driver's counts."""
        devices: dict[str, Device] = {}
        for found in self._found.values():
            for device in found:
                devices.setdefault(device.id, device)
        return tuple(devices[device_id] for device_id in sorted(devices))

    async def discover(self, tasks: anyio.abc.TaskGroup) -> None:
        """Begin discovery in `tasks`; returns when every driver has answered once, or a while later."""
        for name, driver in self._drivers.items():
            tasks.start_soon(self._follow, name, driver)
        with anyio.move_on_after(FIRST_DISCOVERY_S):
            while len(self._found) < len(self._drivers):
                await self._discovered.wait()

    async def _follow(self, name: str, driver: DeviceDriver) -> None:
        while True:
            try:
                async for devices in driver.discover():
                    self._take(name, devices)
                problem = "its discovery ended"
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            log.error("device driver %s: %s; its devices are withdrawn for now", name, problem)
            self._take(name, ())
            await anyio.sleep(DISCOVER_AGAIN_S)

    def _take(self, name: str, devices: tuple[Device, ...]) -> None:
        if self._found.get(name) != devices:
            self._found[name] = devices
            self._changed()
        self._discovered.set()
        self._discovered = anyio.Event()

    async def reserve(self, ids: Iterable[str], task_id: TaskId, fence: Fence) -> list[Attachment]:
        """Hand the devices to a run; if one cannot be had, none is held. If cancelled, none is held.

        Raises:
            ExecutorError: if one is gone, or held by a newer run.
        """
        attachments: list[Attachment] = []
        held: list[str] = []
        try:
            for device_id in sorted(ids):
                driver = self._driver_of(device_id)
                if driver is None:
                    raise ExecutorError(
                        f"device {device_id} is no longer there", reason=Reason.RESOURCES_UNAVAILABLE
                    )
                held.append(device_id)
                self._holders[device_id, task_id, fence] = driver
                attachments.append(await _reserve(driver, device_id, task_id, fence))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.release(held, task_id, fence)
            raise
        return attachments

    async def release(self, ids: Iterable[str], task_id: TaskId, fence: Fence) -> None:
        """Take the devices back from that run. Idempotent; never raises."""
        for device_id in ids:
            # Not looked up among what is there: a device that has vanished is released too.
            driver = self._holders.pop((device_id, task_id, fence), None)
            if driver is None:
                continue
            try:
                with anyio.move_on_after(DRIVER_TIMEOUT_S) as scope:
                    await driver.release(device_id, task_id, fence)
                if scope.cancelled_caught:
                    log.error("device driver %s did not release %s in time", driver.name, device_id)
            except Exception:
                log.exception("device driver %s failed to release %s", driver.name, device_id)

    def _driver_of(self, device_id: str) -> DeviceDriver | None:
        for name, found in self._found.items():
            if any(device.id == device_id for device in found):
                return self._drivers[name]
        return None

    async def close(self) -> None:
        """Close all drivers. Idempotent; never raises."""
        for name, driver in self._drivers.items():
            try:
                with anyio.move_on_after(DRIVER_TIMEOUT_S) as scope:
                    await driver.close()
                if scope.cancelled_caught:
                    log.error("device driver %s did not close in time", name)
            except Exception:
                log.exception("device driver %s failed to close", name)


async def _reserve(driver: DeviceDriver, device_id: str, task_id: TaskId, fence: Fence) -> Attachment:
    """Ask a driver for a device; what it does wrong is its own fault, and not the task's.

    Raises:
        ExecutorError: naming the driver, unless that is what it raised.
    """
    try:
        with anyio.fail_after(DRIVER_TIMEOUT_S):
            attachment = await driver.reserve(device_id, task_id, fence)
        if not isinstance(attachment, Attachment):
            raise TypeError(f"it returned {type(attachment).__name__}, expected Attachment")
        return attachment
    except ExecutorError:
        raise
    except TimeoutError as error:
        problem = f"did not hand out {device_id} within {DRIVER_TIMEOUT_S:g} s"
        text = f"device driver {driver.name} {problem}"
        raise ExecutorError(text, reason=Reason.RESOURCES_UNAVAILABLE) from error
    except Exception as error:
        log.exception("device driver %s failed to hand out %s", driver.name, device_id)
        problem = f"failed to hand out {device_id}: {type(error).__name__}: {error}"
        text = f"device driver {driver.name} {problem}"
        raise ExecutorError(text, reason=Reason.RESOURCES_UNAVAILABLE) from error
