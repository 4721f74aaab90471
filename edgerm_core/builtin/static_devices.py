"""Devices that the config lists: an I2C sensor, a serial port, a camera that is always there.

    [device_driver.static]
    devices = [
        { id = "bme280-0", type = "bme280", device_node = "/dev/i2c-1", env = { I2C_ADDRESS = "0x76" } },
        { id = "cam0", type = "camera", slots = 2, attributes = { megapixels = 8 } },
    ]

A device with a `device_node` is there while that path is.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Final

import anyio
import msgspec

from edgerm_core.attributes import Attributes
from edgerm_core.errors import ExecutorError
from edgerm_core.hookspecs import hookimpl
from edgerm_core.ids import TaskId
from edgerm_core.interfaces import Attachment, DeviceDriver, Fence, Provider
from edgerm_core.resources import Device
from edgerm_core.tasks import Reason

LOOK_EVERY_S: Final = 5.0
"""How often device nodes are looked for."""

FENCES_KEPT: Final = 4096
"""Newest fences remembered, by device and task; the one longest unused is forgotten first."""


class StaticDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One device. Fields as in `resources.Device`, and what its tasks get.

    Attributes:
        id: unique on this agent, such as `cam0`.
        type: what a task asks for, such as `camera`.
        slots: 1 for exclusive use, n when n tasks may hold it at once.
        attributes: facts for constraints.
        channels: what can be read or written, with units, such as `{temperature = "degC"}`.
        env: environment variables for its tasks.
        device_node: path in /dev to hand to its tasks; the device is healthy while it exists. Its tasks
            find the path in `EDGERM_DEVICE_<ID>` too.
    """

    id: str
    type: str
    slots: int = 1
    attributes: Attributes = {}
    channels: dict[str, str] = {}
    env: dict[str, str] = {}
    device_node: str = ""

    def __post_init__(self) -> None:
        if not self.id or not self.type or self.slots < 1:
            raise ValueError("a device needs an id, a type and at least one slot")


class StaticConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[device_driver.static]`.

    Attributes:
        devices: tables, one for each device.
    """

    devices: tuple[StaticDevice, ...] = ()

    def __post_init__(self) -> None:
        if len({device.id for device in self.devices}) != len(self.devices):
            raise ValueError("two devices have the same id")


class StaticDriver(DeviceDriver):
    """Hands out what the config lists. Keeps its books in memory: runs that outlive the agent process
    reserve again, with the same fence."""

    name = "static"

    def __init__(self, config: StaticConfig, look_every_s: float = LOOK_EVERY_S) -> None:
        self._devices = {device.id: device for device in config.devices}
        self._look_every_s = look_every_s
        self._holders: dict[str, dict[TaskId, Fence]] = {device.id: {} for device in config.devices}
        self._seen: dict[tuple[str, TaskId], Fence] = {}

    async def discover(self) -> AsyncIterator[tuple[Device, ...]]:
        """See `DeviceDriver.discover`."""
        last: tuple[Device, ...] | None = None
        while True:
            devices = tuple(_device(device) for device in self._devices.values())
            if devices != last:
                last = devices
                yield devices
            await anyio.sleep(self._look_every_s)

    async def reserve(self, device_id: str, task_id: TaskId, fence: Fence) -> Attachment:
        """See `DeviceDriver.reserve`. A newer run takes the slot of an older run of the same task."""
        device = self._devices.get(device_id)
        if device is None or not _there(device):
            raise _unavailable(f"device {device_id} is not there")
        holders = self._holders[device_id]
        if self._seen.get((device_id, task_id), fence) > fence:
            raise _unavailable(f"a newer run of t{task_id} has had device {device_id}")
        if task_id not in holders and len(holders) >= device.slots:
            raise _unavailable(f"device {device_id} has no slot left")
        holders[task_id] = fence
        self._seen.pop((device_id, task_id), None)
        self._seen[device_id, task_id] = fence
        if len(self._seen) > FENCES_KEPT:
            del self._seen[next(iter(self._seen))]
        env = dict(device.env)
        nodes: tuple[str, ...] = ()
        if device.device_node:
            env[f"EDGERM_DEVICE_{re.sub('[^A-Z0-9]', '_', device.id.upper())}"] = device.device_node
            nodes = (device.device_node,)
        return Attachment(env, nodes)

    async def release(self, device_id: str, task_id: TaskId, fence: Fence) -> None:
        """See `DeviceDriver.release`."""
        holders = self._holders.get(device_id, {})
        if holders.get(task_id) == fence:
            del holders[task_id]


def _there(device: StaticDevice) -> bool:
    return not device.device_node or Path(device.device_node).exists()


def _device(device: StaticDevice) -> Device:
    return Device(
        device.id, device.type, device.slots, device.attributes, device.channels, healthy=_there(device)
    )


def _unavailable(message: str) -> ExecutorError:
    return ExecutorError(message, reason=Reason.RESOURCES_UNAVAILABLE)


@hookimpl
def device_drivers() -> Iterable[Provider[DeviceDriver]]:
    """Provide `static`."""
    yield Provider(
        name="static",
        create=StaticDriver,
        config_type=StaticConfig,
        summary="devices that the config lists ([device_driver.static])",
    )
