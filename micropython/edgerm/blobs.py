"""Fetches blobs, block by block straight to flash, and makes room for them; there only while it has to.

A fetch that was interrupted goes on at the length of its `.part` file, in another session and after a
reboot too.
"""

import hashlib
import os
from binascii import b2a_base64

from edgerm.blob_cache import name as file_name
from edgerm.coap import szx


class Fetcher:
    """Fetches what is wanted, one blob at a time.

    Parameters:
        config: see `config`.
        arrived: called with a blob, and with "" and "" when it is there, or with the reason and a
            sentence if it cannot be had.
        in_use: returns whether a task needs the blob of that file name.

    Attributes:
        wanted: blobs to be fetched, the first one is under way; never empty between two calls.
        next_at: when to ask for the next block.
    """

    def __init__(self, config, arrived, in_use):
        self.wanted = []
        self.next_at = 0
        self._directory = config["dir"] + "/blobs"
        self._limit = config["blob_cache_bytes"]
        self._szx = szx(config["block_bytes"])
        self._arrived = arrived
        self._in_use = in_use
        self._file = None
        self._hash = None
        self._at = 0
        self.known = False
        self._refused = False
        self._spoiled = None

    def unwant(self, blob):
        """Nobody needs the blob any more. What there is of it stays. Idempotent."""
        if blob in self.wanted:
            if blob == self.wanted[0]:
                self._close()
            self.wanted.remove(blob)

    # --- what the session asks and hears ------------------------------------------------------

    def name(self):
        """Return the path segment of the blob that is being fetched: a new session has to hear the whole
        name once, and clears `known` for it."""
        whole = b2a_base64(self.wanted[0]).strip().rstrip(b"=").decode()
        whole = whole.replace("+", "-").replace("/", "_")
        return whole[:8] if self.known else whole

    def block(self):
        """Return Block2 for the next request."""
        if self._file is None:
            self._open()
        return (self._at >> 4 + self._szx) << 4 | self._szx

    def take(self, data, block):
        """Take a block: its data and its Block2."""
        if self._file is None:
            return  # Of a fetch that was given up.
        at = more = 0
        if block >= 0:
            # The master may send smaller blocks than asked for; from then on that is what is asked for.
            self._szx = min(self._szx, block & 7)
            at = (block >> 4) << 4 + (block & 7)
            more = block & 8
        if at != self._at:
            return  # A double.
        try:
            if self._at == 0:
                self._make_room(len(data))
            self._file.write(data)
            self._at += len(data)
            if self._at > self._limit:
                raise OSError("it is larger than the cache of %d bytes" % self._limit)
            if not self._at & 0xFFF:
                self._file.flush()
        except OSError as error:
            path = self._part()
            self._end("resources-unavailable", "no room for the blob: %s" % error)
            os.remove(path)
            return
        self._hash.update(data)
        self.known = True
        self._refused = False
        if not more:
            self._check()

    def refuse(self, code, next_at):
        """The master does not have it, or cannot send it now."""
        self.next_at = next_at
        self.known = False
        # The first 4.04 may be about the session; if that still lives when it is asked again, it is the
        # blob.
        if code == 0x84 and self._refused:
            self._end("blob-unavailable", "the master does not have the blob")
        else:
            self._refused = code == 0x84

    # --- files --------------------------------------------------------------------------------

    def _open(self):
        path = self._part()
        self._hash = hashlib.sha256()
        self._at = 0
        block = 16 << self._szx
        try:
            # What was written before a power cut need not end with a block.
            size = os.stat(path)[6] // block * block
        except OSError:
            size = 0
        self._file = open(path, "r+b" if size else "wb")
        while self._at < size:
            self._hash.update(self._file.read(block))
            self._at += block

    def _check(self):
        blob = self.wanted[0]
        good = self._hash.digest() == blob
        path = self._part()
        self._close()
        if not good:
            os.remove(path)
            if self._spoiled == blob:
                self._end("blob-invalid", "what arrived is not the blob: its hash is another")
            self._spoiled = blob  # Perhaps by a power cut: once more from the beginning.
            return
        with open(path, "rb") as file:
            head = file.read(4)
        suffix = ".mpy" if head[:2] == b"M\x06" else ".wasm" if head == b"\0asm" else ".py"
        os.rename(path, path.replace(".part", suffix))
        self._make_room(0)
        self._end("", "")

    def _end(self, reason, message):
        self._close()
        self._arrived(self.wanted.pop(0), reason, message)

    def _close(self):
        if self._file is not None:
            self._file.close()
        self._file = self._hash = None
        self.known = self._refused = False

    def _part(self):
        return self._directory + "/" + file_name(self.wanted[0]) + ".part"

    def _make_room(self, size):
        """Remove what no task uses until `size` bytes more fit."""
        idle = []
        for file in os.listdir(self._directory):
            size += os.stat(self._directory + "/" + file)[6]
            name = file.split(".")[0]
            if name != file_name(self.wanted[0]) and not self._in_use(name):
                idle.append(file)
        while size > self._limit and idle:
            path = self._directory + "/" + idle.pop(0)
            size -= os.stat(path)[6]
            os.remove(path)
