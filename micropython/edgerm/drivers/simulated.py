"""A temperature where there is no sensor: `{"driver": "simulated", "mean": 20, "swing": 5}`."""

import math

from edgerm import now


class Driver:
    """Channel `temperature`: a sine with a period of a minute."""

    type = "temperature"
    channels = {"temperature": "degC"}
    slots = 8

    def __init__(self, settings):
        self._mean = settings.get("mean", 20)
        self._swing = settings.get("swing", 5)

    def read(self, channel):
        """Return the temperature."""
        if channel != "temperature":
            raise ValueError("no channel " + channel)
        return self._mean + self._swing * math.sin(now() % 60000 * 2 * math.pi / 60000)

    def write(self, channel, value):
        """Set the mean."""
        if channel != "temperature":
            raise ValueError("no channel " + channel)
        self._mean = value
