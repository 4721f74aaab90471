"""The id of a board whose config gives it none: of its chip, or drawn once and kept."""

import os
import sys
from binascii import hexlify


def own_id(directory, machine):
    """Return it.

    Parameters:
        directory: where one that was drawn is kept.
        machine: the module, or None.
    """
    if hasattr(machine, "unique_id"):
        return sys.platform + "-" + hexlify(machine.unique_id()).decode()
    path = directory + "/id"
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        own = sys.platform + "-" + hexlify(os.urandom(6)).decode()
        with open(path, "w") as file:
            file.write(own)
        return own
