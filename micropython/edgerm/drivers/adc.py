"""An analogue input: `{"driver": "adc", "pin": 34, "full_scale": 3.3}`."""

import machine


class Driver:
    """Channel `voltage`."""

    type = "adc"
    channels = {"voltage": "V"}

    def __init__(self, settings):
        self._adc = machine.ADC(machine.Pin(settings["pin"]))
        self._full_scale = settings.get("full_scale", 3.3)

    def read(self, channel):
        """Return the voltage."""
        if channel != "voltage":
            raise ValueError("no channel " + channel)
        return self._adc.read_u16() * self._full_scale / 65535

    def write(self, channel, value):
        """Not possible."""
        raise OSError("an analogue input cannot be written")
