"""The blobs on this board's flash, by name: `<dir>/<16 hex digits>` and a suffix.

`.py`, `.mpy` or `.wasm` is a whole and checked blob; `.part` is being fetched.
"""

import os
from binascii import hexlify


def name(blob):
    """Return what the file of a blob is called, without its suffix."""
    return hexlify(blob[:8]).decode()


def path(directory, blob):
    """Return where a whole blob is, or None."""
    for file in os.listdir(directory):
        if file.startswith(name(blob)) and not file.endswith(".part"):
            return directory + "/" + file
    return None
