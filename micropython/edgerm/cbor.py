"""The part of CBOR (RFC 8949) that edgerm's messages need: everything but tags."""

import struct

NESTING = 16
"""Containers inside each other, as on the master."""


def put(buf, at, value):
    """Write `value` into `buf` from `at` and return where it ends.

    Raises:
        ValueError: if it does not fit, or is of a type that no message has.
    """
    kind = type(value)
    if kind is int:
        return _head(buf, at, 0, value) if value >= 0 else _head(buf, at, 0x20, -1 - value)
    if value is None or kind is bool:
        return _head(buf, at, 0xE0, 22 if value is None else 20 + value)
    if kind is list or kind is tuple:
        at = _head(buf, at, 0x80, len(value))
        for item in value:
            at = put(buf, at, item)
        return at
    if kind is dict:
        at = _head(buf, at, 0xA0, len(value))
        for key in value:
            at = put(buf, put(buf, at, key), value[key])
        return at
    if kind is float:
        value = b"\xfb" + struct.pack(">d", value)
    elif kind is str:
        value = value.encode()
        at = _head(buf, at, 0x60, len(value))
    elif kind is bytes:
        at = _head(buf, at, 0x40, len(value))
    else:
        raise ValueError("no CBOR for " + kind.__name__)
    end = at + len(value)
    if end > len(buf):
        raise ValueError("it does not fit into a frame")
    buf[at:end] = value
    return end


def _head(buf, at, major, n):
    size = 0 if n < 24 else 1 if n < 0x100 else 2 if n < 0x10000 else 4 if n < 0x100000000 else 8
    if at + size >= len(buf):
        raise ValueError("it does not fit into a frame")
    # 24 to 27 stand for 1, 2, 4, 8 bytes behind.
    buf[at] = major | (n if size == 0 else 24 + (size > 1) + (size > 2) + (size > 4))
    while size:
        size -= 1
        at += 1
        buf[at] = n >> 8 * size & 0xFF
    return at + 1


class Reader:
    """Reads values one behind the other out of `buf[at:]`."""

    def __init__(self, buf, at=0):
        self.buf = buf
        self.at = at

    def read(self, depth=NESTING):
        """Return the next value.

        Raises:
            ValueError: if there is none, or not one this protocol has.
        """
        byte = self._take(1)[0]
        major = byte >> 5
        n = byte & 31
        if major == 7:
            if 20 <= n <= 22:
                return (False, True, None)[n - 20]
            if n < 25 or n > 27:
                raise ValueError("not CBOR of this protocol")
            value = struct.unpack((">e", ">f", ">d")[n - 25], self._take(1 << n - 24))[0]
            if value - value != 0:
                raise ValueError("not a finite number")
            return value
        if 24 <= n < 28:
            n = int.from_bytes(self._take(1 << n - 24), "big")
        elif n == 31 and 3 < major < 6:
            n = -1  # Until a break code.
        elif n >= 28:
            raise ValueError("not CBOR of this protocol")
        if major < 2:
            return -1 - n if major else n
        if major < 4:
            data = self._take(n)
            return str(data, "utf-8") if major == 3 else bytes(data)
        if depth == 0 or major == 6:
            raise ValueError("a tag, or nested too deeply")
        items = [] if major == 4 else {}
        while n:
            n -= 1
            if n < 0 and self.buf[self.at : self.at + 1] == b"\xff":
                self.at += 1
                break
            value = self.read(depth - 1)
            if major == 4:
                items.append(value)
            elif type(value) is str and value not in items:
                items[value] = self.read(depth - 1)
            else:
                raise ValueError("a map key that is no text, or stands twice")
        return items

    def _take(self, n):
        at = self.at
        self.at = at + n
        if self.at > len(self.buf):
            raise ValueError("cut off")
        return memoryview(self.buf)[at : self.at]
