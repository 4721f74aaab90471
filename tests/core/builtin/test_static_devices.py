"""The built-in driver of devices that the config lists."""

from __future__ import annotations

from pathlib import Path

import anyio
import msgspec
import pytest

from edgerm_core.builtin.static_devices import StaticConfig, StaticDriver
from edgerm_core.config import parse_config
from edgerm_core.errors import ConfigError, ExecutorError
from edgerm_core.ids import TaskId
from edgerm_core.interfaces import DeviceDriver, Fence
from edgerm_core.testing.contracts.device_driver import DeviceDriverContract

pytestmark = pytest.mark.anyio


def driver_of(*devices: dict[str, object], look_every_s: float = 5.0) -> StaticDriver:
    return StaticDriver(msgspec.convert({"devices": devices}, StaticConfig), look_every_s)


class TestStaticDriver(DeviceDriverContract):
    @pytest.fixture
    def driver(self) -> DeviceDriver:
        return driver_of({"id": "cam0", "type": "camera", "slots": 2}, {"id": "led0", "type": "led"})


async def test_a_device_is_healthy_while_its_node_exists(tmp_path: Path) -> None:
    node = tmp_path / "i2c-1"
    driver = driver_of({"id": "s", "type": "bme280", "device_node": str(node)}, look_every_s=0.01)
    found = aiter(driver.discover())
    with anyio.fail_after(10):
        (absent,) = await anext(found)
        node.touch()
        (present,) = await anext(found)
    assert (absent.healthy, present.healthy) == (False, True)


async def test_a_device_whose_node_has_gone_is_not_handed_out(tmp_path: Path) -> None:
    driver = driver_of({"id": "s", "type": "bme280", "device_node": str(tmp_path / "gone")})
    with pytest.raises(ExecutorError, match="s is not there"):
        await driver.reserve("s", TaskId(1), Fence(1))


async def test_a_task_finds_the_node_in_its_environment(tmp_path: Path) -> None:
    node = tmp_path / "tty"
    node.touch()
    device: dict[str, object] = {
        "id": "gps-0",
        "type": "gps",
        "device_node": str(node),
        "env": {"BAUD": "9600"},
    }
    attachment = await driver_of(device).reserve("gps-0", TaskId(1), Fence(1))
    assert attachment.env == {"BAUD": "9600", "EDGERM_DEVICE_GPS_0": str(node)}
    assert attachment.device_nodes == (str(node),)


@pytest.mark.parametrize(
    ("devices", "problem"),
    [
        ('[{ id = "a", type = "x" }, { id = "a", type = "y" }]', "same id"),
        ('[{ id = "a", type = "x", slots = 0 }]', "at least one slot"),
        ('[{ id = "a", type = "x", colour = "red" }]', "unknown key `colour`"),
    ],
)
async def test_a_wrong_section_is_named(devices: str, problem: str) -> None:
    config = parse_config(f"[device_driver.static]\ndevices = {devices}")
    with pytest.raises(ConfigError, match=problem):
        config.section("device_driver", "static", StaticConfig)
