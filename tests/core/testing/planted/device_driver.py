"""Device drivers with bugs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import anyio
import msgspec
import pytest

from edgerm_core.builtin.static_devices import StaticConfig, StaticDriver
from edgerm_core.errors import ExecutorError
from edgerm_core.ids import TaskId
from edgerm_core.interfaces import Attachment, DeviceDriver, Fence
from edgerm_core.resources import Device
from edgerm_core.tasks import Reason
from edgerm_core.testing.contracts.device_driver import ABSENT, DeviceDriverContract

DEVICES: list[dict[str, Any]] = [
    {"id": "cam0", "type": "camera", "slots": 2, "channels": {"light": "lx"}},
    {"id": "led0", "type": "led"},
]


class HasChannels(StaticDriver):
    """Each device keeps a number for each of its channels."""

    async def read(self, device_id: str, channel: str) -> float | str:
        if (device_id, channel) != ("cam0", "light"):
            raise ExecutorError(
                f"{device_id} has no channel {channel}", reason=Reason.RESOURCES_UNAVAILABLE
            )
        return 3.0

    async def write(
        self, device_id: str, channel: str, value: float | str, task_id: TaskId, fence: Fence
    ) -> None:
        if fence < self._seen.get((device_id, task_id), fence):
            raise ExecutorError(f"a newer run has {device_id}", reason=Reason.RESOURCES_UNAVAILABLE)
        if device_id != "cam0":
            raise NotImplementedError


class Sound(DeviceDriverContract):
    caught_by: ClassVar[str]
    says: ClassVar[str] = ""
    bug: ClassVar[type[StaticDriver]]

    @pytest.fixture
    def driver(self) -> DeviceDriver:
        return type(self).bug(msgspec.convert({"devices": DEVICES}, StaticConfig))


class TestSound(Sound):
    bug = HasChannels


class TestEndsDiscovery(Sound):
    class bug(StaticDriver):
        async def discover(self) -> AsyncIterator[tuple[Device, ...]]:
            yield tuple(Device(str(d["id"]), str(d["type"])) for d in DEVICES)

    caught_by = "test_discovery_goes_on_until_cancelled"
    says = "discovery ended by itself"


class TestFindsDevicesOnce(Sound):
    class bug(StaticDriver):
        discovered = False

        async def discover(self) -> AsyncIterator[tuple[Device, ...]]:
            first, self.discovered = not self.discovered, True
            yield tuple(Device(str(d["id"]), str(d["type"])) for d in DEVICES if first)
            await anyio.sleep_forever()

    caught_by = "test_discovery_can_begin_again_after_it_was_cancelled"


class TestBlocksTheLoop(Sound):
    class bug(StaticDriver):
        async def discover(self) -> AsyncIterator[tuple[Device, ...]]:
            time.sleep(60)  # noqa: ASYNC251
            yield ()

    @pytest.fixture
    def blocked_s(self) -> float:
        return 0.5

    caught_by = "test_discovery_goes_on_until_cancelled"
    says = "this has blocked the event loop for 0.5 s"


class TestNamesTwoAlike(Sound):
    class bug(StaticDriver):
        async def discover(self) -> AsyncIterator[tuple[Device, ...]]:
            yield (Device("cam0", "camera"), Device("cam0", "camera"))
            await anyio.sleep_forever()

    caught_by = "test_the_ids_of_its_devices_are_unique"


class TestReadsNothing(Sound):
    class bug(HasChannels):
        async def read(self, device_id: str, channel: str) -> Any:
            await super().read(device_id, channel)

    caught_by = "test_a_channel_that_is_named_has_a_value"
    says = "cam0.light is None"


class TestReadsWhatIsNotThere(Sound):
    class bug(HasChannels):
        async def read(self, device_id: str, channel: str) -> float | str:
            return 0.0

    caught_by = "test_what_is_not_there_cannot_be_read"
    says = "DID NOT RAISE"


class TestLetsAnybodyWrite(Sound):
    class bug(HasChannels):
        async def write(
            self, device_id: str, channel: str, value: float | str, task_id: TaskId, fence: Fence
        ) -> None:
            pass

    caught_by = "test_an_older_run_cannot_write"
    says = "DID NOT RAISE"


class TestLendsWithoutEnd(Sound):
    class bug(StaticDriver):
        async def reserve(self, device_id: str, task_id: TaskId, fence: Fence) -> Attachment:
            try:
                return await super().reserve(device_id, task_id, fence)
            except ExecutorError:
                if device_id == ABSENT:
                    raise
                return Attachment()

    caught_by = "test_no_more_tasks_than_slots_get_a_device"
    says = "DID NOT RAISE"


class TestIsFencedByNobody(Sound):
    bug = TestLendsWithoutEnd.bug
    caught_by = "test_an_older_run_is_fenced_out"
    says = "DID NOT RAISE"


class TestForgetsFencesOnRelease(Sound):
    class bug(StaticDriver):
        async def release(self, device_id: str, task_id: TaskId, fence: Fence) -> None:
            await super().release(device_id, task_id, fence)
            self._seen.clear()

    caught_by = "test_an_older_run_stays_fenced_out_after_the_newer_one_released"


class TestLendsTwiceToOne(Sound):
    """Every call takes a slot."""

    class bug(StaticDriver):
        calls = 0

        async def reserve(self, device_id: str, task_id: TaskId, fence: Fence) -> Attachment:
            self.calls += 1
            if self.calls > self._devices[device_id].slots:
                raise ExecutorError(f"device {device_id} has no slot left")
            return await super().reserve(device_id, task_id, fence)

    caught_by = "test_reserving_again_with_the_same_fence_changes_nothing"
    says = "has no slot left"


class TestTakesBackFromAnybody(Sound):
    class bug(StaticDriver):
        async def release(self, device_id: str, task_id: TaskId, fence: Fence) -> None:
            holders = self._holders.get(device_id, {})
            if holders:
                holders.popitem()

    caught_by = "test_another_task_cannot_release_a_slot"
    says = "DID NOT RAISE"


class TestObeysAnOlderRelease(Sound):
    class bug(StaticDriver):
        async def release(self, device_id: str, task_id: TaskId, fence: Fence) -> None:
            self._holders.get(device_id, {}).pop(task_id, None)

    caught_by = "test_an_older_run_cannot_release_what_a_newer_one_holds"


class TestHasOneFenceForAll(Sound):
    class bug(StaticDriver):
        largest = Fence(0)

        async def reserve(self, device_id: str, task_id: TaskId, fence: Fence) -> Attachment:
            if fence < self.largest:
                raise ExecutorError("a newer run has had it")
            self.largest = fence
            return await super().reserve(device_id, task_id, fence)

    caught_by = "test_a_fence_is_for_its_own_task"
    says = "a newer run has had it"


class TestReleasesOnlyWhatIsThere(Sound):
    class bug(StaticDriver):
        async def release(self, device_id: str, task_id: TaskId, fence: Fence) -> None:
            del self._holders[device_id][task_id]

    caught_by = "test_releasing_is_idempotent_and_never_raises"
    says = "KeyError"


class TestGivesNoReason(Sound):
    class bug(StaticDriver):
        async def reserve(self, device_id: str, task_id: TaskId, fence: Fence) -> Attachment:
            if device_id not in self._devices:
                raise ExecutorError(f"{device_id}?")
            return await super().reserve(device_id, task_id, fence)

    caught_by = "test_a_device_that_is_not_there_is_refused_with_its_reason"


class TestPutsNumbersIntoTheEnvironment(Sound):
    class bug(StaticDriver):
        async def reserve(self, device_id: str, task_id: TaskId, fence: Fence) -> Any:
            return Attachment({"CAMERA_PORT": 5})  # type: ignore[dict-item]

    caught_by = "test_a_run_gets_an_attachment"
    says = "CAMERA_PORT is 5, expected text"


class TestNamesANodeWithoutItsPlace(Sound):
    class bug(StaticDriver):
        async def reserve(self, device_id: str, task_id: TaskId, fence: Fence) -> Attachment:
            return Attachment(device_nodes=("video0",))

    caught_by = "test_a_run_gets_an_attachment"
    says = "video0 is no path"
