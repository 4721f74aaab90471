"""The board's devices: one driver each, and who may write to them."""


class Devices:
    """All devices.

    Parameters:
        settings: by device id, `{"driver": …}` and what the driver needs.

    Attributes:
        drivers: by device id.
    """

    def __init__(self, settings):
        self.drivers = {}
        self._fences = {}
        for device, its in settings.items():
            module = _import(its["driver"])
            try:
                self.drivers[device] = module.Driver(its)
            except Exception as error:
                # One sensor that does not answer must not keep the board from working.
                print("edgerm: device %s is left out: %s: %s" % (device, type(error).__name__, error))

    def reserve(self, device, task_id, fence):
        """Hand a device to a run: from now on older runs of the task cannot write to it."""
        holder, newest = self._fences.get(device, (task_id, fence))
        self._fences[device] = (task_id, max(fence, newest) if holder == task_id else fence)

    def check(self, device, task_id, fence):
        """Check that no newer run has had the device.

        Raises:
            OSError: if one has.
        """
        holder, newest = self._fences.get(device, (task_id, fence))
        if holder == task_id and fence < newest:
            raise OSError("a newer run of t%d has had device %s" % (task_id, device))


def _import(name):
    try:
        return __import__("edgerm.drivers." + name, None, None, ("Driver",))
    except ImportError:
        return __import__(name, None, None, ("Driver",))
