"""A pin: `{"driver": "pin", "pin": 2, "mode": "out"}`, or `"in"`, with `"pull": "up"` or `"down"`."""

import machine


class Driver:
    """Channel `level`: 0 or 1."""

    type = "pin"
    channels = {"level": ""}

    def __init__(self, settings):
        pin = machine.Pin
        self._out = settings.get("mode", "in") == "out"
        pull = {"up": pin.PULL_UP, "down": pin.PULL_DOWN}.get(settings.get("pull"))
        if self._out:
            self._pin = pin(settings["pin"], pin.OUT)
        else:
            self._pin = pin(settings["pin"], pin.IN, pull)
        self.attributes = {"mode": "out" if self._out else "in"}

    def read(self, channel):
        """Return the level."""
        self._check(channel)
        return self._pin.value()

    def write(self, channel, value):
        """Set the level of an output."""
        self._check(channel)
        if not self._out:
            raise OSError("the pin is an input")
        self._pin.value(1 if value else 0)

    def _check(self, channel):
        if channel != "level":
            raise ValueError("no channel " + channel)
