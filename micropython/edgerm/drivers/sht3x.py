"""Sensirion SHT30, SHT31, SHT35 on I2C: `{"driver": "sht3x", "i2c": 0, "scl": 22, "sda": 21, "address":
68}`.

After the datasheet (version 6): measurement commands in table 8, conversion in section 4.13, checksum in
table 20.
"""

import time

import machine


class Driver:
    """Channels `temperature` and `humidity`."""

    type = "sht3x"
    channels = {"temperature": "degC", "humidity": "%"}

    def __init__(self, settings):
        pin = machine.Pin
        self._i2c = machine.I2C(settings.get("i2c", 0), scl=pin(settings["scl"]), sda=pin(settings["sda"]))
        self._address = settings.get("address", 0x44)
        self._measure()  # Not there: not offered.

    def read(self, channel):
        """Measure, and return the value."""
        if channel not in self.channels:
            raise ValueError("no channel " + channel)
        temperature, humidity = self._measure()
        return temperature if channel == "temperature" else humidity

    def write(self, channel, value):
        """Not possible."""
        raise OSError("a sensor cannot be written")

    def _measure(self):
        # Single shot, high repeatability, no clock stretching: at most 15.5 ms.
        self._i2c.writeto(self._address, b"\x24\x00")
        time.sleep_ms(16)
        data = self._i2c.readfrom(self._address, 6)
        if crc8(data[:2]) != data[2] or crc8(data[3:5]) != data[5]:
            raise OSError("the sensor's checksum is wrong")
        raw_temperature = data[0] << 8 | data[1]
        raw_humidity = data[3] << 8 | data[4]
        return -45 + 175 * raw_temperature / 65535, 100 * raw_humidity / 65535


def crc8(data):
    """Return the sensor's checksum: polynomial 0x31, beginning with 0xff."""
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x31 if crc & 0x80 else crc << 1) & 0xFF
    return crc
