"""What must survive a reboot: one append-only file, written when an attempt starts, restarts or ends.

A record is its length (2 bytes), its CRC-32 (4 bytes) and one CBOR array:

    [8, …]                                          Launch, as it came
    [6, …]                                          the end: StatusUpdate, its number still 0
    [100, task, attempt, restarts, begun, n, streak] it starts again in place; the count of `restart`
    [101, task, attempt]                            the master has acknowledged the end
    [102, master id]                                whose tasks they are
    [103, session]                                  the session that a next start has to end

`recovery` reads it.
"""

import struct
from binascii import crc32

from edgerm import cbor, part

COMPACT_BYTES = 4096
"""A file of this size is written anew with what still matters: every 30 tasks or so."""


class Journal:
    """The file.

    Parameters:
        path: where it is.

    Attributes:
        size: its length in bytes.
        limit: the length at which it is written anew.
        later: records to be written together with the next one: it is no loss if there is none.
    """

    def __init__(self, path):
        self.path = path
        self.size = 0
        self.limit = COMPACT_BYTES
        self.later = []

    def write(self, record, agent):
        """Append a record, a list or its bytes; returns when the file system has it. Never raises: without
        the record a reboot forgets what it says, and the master repeats the order.

        Parameters:
            agent: whose state it is; a long file is written anew from it, this record included.
        """
        try:
            if self.size >= self.limit:
                part("recovery").compact(self, agent)
                self.limit = max(COMPACT_BYTES, 2 * self.size)
                return
            with open(self.path, "ab") as file:
                for each in self.later:
                    self.append(file, each)
                self.later.clear()
                self.append(file, record)
        except (OSError, MemoryError) as error:
            # Behind half a record nothing would be read: the next one begins the file anew.
            self.limit = 0
            print("edgerm: the journal cannot be written:", error)

    def append(self, file, record):
        """Write one record to an open file."""
        if type(record) is list:
            buf = bytearray(64)
            try:
                end = cbor.put(buf, 0, record)
            except ValueError:
                buf = bytearray(1152)  # An end with a result or a traceback.
                end = cbor.put(buf, 0, record)
            record = memoryview(buf)[:end]
        file.write(struct.pack(">HI", len(record), crc32(record)))
        file.write(record)
        self.size += 6 + len(record)
