"""Devices and their drivers, on a `machine` that the tests play, byte by byte as datasheets say."""

from __future__ import annotations

import pytest

from tests.micropython.conftest import Interpreter

MACHINE = """
# Stands in for the firmware's module.
class Pin:
    IN, OUT, PULL_UP, PULL_DOWN = 0, 1, 2, 3
    made = []
    def __init__(self, number, mode=IN, pull=None):
        self.level = 0
        Pin.made.append((number, mode, pull))
    def value(self, level=None):
        if level is None:
            return self.level
        self.level = level

class ADC:
    def __init__(self, pin):
        pass
    def read_u16(self):
        return 32768

class I2C:
    answer = b"\\x66\\x66\\x93\\x80\\x00\\xa2"
    sent = []
    def __init__(self, bus, scl, sda):
        pass
    def writeto(self, address, data):
        I2C.sent.append((address, data))
    def readfrom(self, address, n):
        if I2C.answer is None:
            raise OSError(19)
        return I2C.answer
"""

DEVICES = """
import machine
from edgerm.devices import Devices

def refused(function, *args):
    try:
        function(*args)
    except (OSError, ValueError):
        return True
    return False
"""


@pytest.fixture
def with_machine(interpreter: Interpreter) -> Interpreter:
    (interpreter.directory / "machine.py").write_text(MACHINE)
    return interpreter


def test_an_sht3x_is_measured_converted_and_checked(with_machine: Interpreter) -> None:
    script = """
from edgerm.drivers.sht3x import crc8
assert crc8(b"\\xbe\\xef") == 0x92  # The datasheet's example.
machine.I2C.answer = bytes([0x66, 0x66, crc8(b"\\x66\\x66"), 0x80, 0x00, crc8(b"\\x80\\x00")])
devices = Devices({"air": {"driver": "sht3x", "scl": 22, "sda": 21}})
driver = devices.drivers["air"]
assert abs(driver.read("temperature") - 25.0) < 0.01, driver.read("temperature")
assert abs(driver.read("humidity") - 50.0) < 0.01
assert set(machine.I2C.sent) == {(0x44, b"\\x24\\x00")}
assert refused(driver.read, "pressure") and refused(driver.write, "temperature", 1)
machine.I2C.answer = b"\\x66\\x66\\x00\\x80\\x00\\x00"
assert refused(driver.read, "temperature")
"""
    with_machine.run(DEVICES + script)


def test_a_sensor_that_does_not_answer_is_left_out_and_the_others_are_there(
    with_machine: Interpreter,
) -> None:
    script = """
machine.I2C.answer = None
devices = Devices({"air": {"driver": "sht3x", "scl": 22, "sda": 21}, "temp0": {"driver": "simulated"}})
assert list(devices.drivers) == ["temp0"]
"""
    assert "edgerm: device air is left out: OSError" in with_machine.run(DEVICES + script)


def test_pins_and_analogue_inputs(with_machine: Interpreter) -> None:
    script = """
devices = Devices({"lamp": {"driver": "pin", "pin": 2, "mode": "out"},
                   "button": {"driver": "pin", "pin": 4, "pull": "up"},
                   "battery": {"driver": "adc", "pin": 34}}).drivers
assert sorted(machine.Pin.made, key=lambda pin: pin[0])[:2] == [(2, 1, None), (4, 0, 2)]
devices["lamp"].write("level", 1)
assert devices["lamp"].read("level") == 1
assert refused(devices["button"].write, "level", 1) and refused(devices["lamp"].read, "colour")
assert abs(devices["battery"].read("voltage") - 1.65) < 0.001
assert refused(devices["battery"].write, "voltage", 1) and refused(devices["battery"].read, "current")
"""
    with_machine.run(DEVICES + script)


def test_a_driver_of_ones_own_is_a_module_on_the_board(with_machine: Interpreter) -> None:
    (with_machine.directory / "counter.py").write_text(
        "class Driver:\n    type = 'counter'\n    channels = {'count': ''}\n"
        "    def __init__(self, settings):\n        self.n = settings['start']\n"
        "    def read(self, channel):\n        self.n += 1\n        return self.n\n"
    )
    script = """
devices = Devices({"c": {"driver": "counter", "start": 6}})
assert devices.drivers["c"].read("count") == 7
"""
    with_machine.run(DEVICES + script)


def test_only_the_newest_run_of_a_task_may_write(interpreter: Interpreter) -> None:
    script = """
from edgerm.devices import Devices
devices = Devices({"lamp": {"driver": "simulated"}})
def may_write(task, *fence):
    try:
        devices.check("lamp", task, fence)
        return True
    except OSError:
        return False
devices.reserve("lamp", 17, (1, 0))
assert may_write(17, 1, 0)
devices.reserve("lamp", 17, (1, 1))
assert not may_write(17, 1, 0) and may_write(17, 1, 1)
devices.reserve("lamp", 17, (2, 0))
assert not may_write(17, 1, 1) and may_write(17, 2, 0)
devices.reserve("lamp", 17, (1, 9))  # An older one that comes late takes nothing back.
assert may_write(17, 2, 0) and not may_write(17, 1, 9)
"""
    interpreter.run(script)
