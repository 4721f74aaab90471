"""The codec of boards, in the real interpreter, on the vectors that every implementation is held to."""

from __future__ import annotations

import pytest

from tests.micropython.conftest import ROOT, Interpreter

VECTORS = ROOT / "docs" / "protocol" / "vectors.json"

PRELUDE = """
import json, sys
from edgerm import cbor

def plain(value):
    if type(value) is dict:
        return bytes.fromhex(value["h"]) if list(value) == ["h"] else {k: plain(v) for k, v in
        value.items()}
    return [plain(each) for each in value] if type(value) is list else value

with open("vectors.json") as file:
    vectors = json.load(file)["vectors"]
buf = bytearray(4096)

def refused(data):
    try:
        cbor.Reader(data).read()
    except ValueError:
        return True
    return False
"""


@pytest.fixture
def with_vectors(interpreter: Interpreter) -> Interpreter:
    (interpreter.directory / "vectors.json").write_bytes(VECTORS.read_bytes())
    return interpreter


def test_every_vector_is_read_as_what_it_stands_for(with_vectors: Interpreter) -> None:
    script = """
for vector in vectors:
    raw = bytes.fromhex(vector["hex"])
    reader = cbor.Reader(raw)
    assert reader.read() == plain(vector["value"]), vector["name"]
    assert reader.at == len(raw), vector["name"]
print(len(vectors))
"""
    assert int(with_vectors.run(PRELUDE + script)) >= 57


def test_every_vector_is_written_as_it_stands(with_vectors: Interpreter) -> None:
    # Dicts of this interpreter have an order of their own: with several keys only the meaning can be
    # compared.
    script = """
def ordered(value):
    if type(value) is dict:
        return len(value) < 2 and all([ordered(each) for each in value.values()])
    return all([ordered(each) for each in value]) if type(value) is list else True

same = 0
for vector in vectors:
    value = plain(vector["value"])
    end = cbor.put(buf, 0, value)
    assert cbor.Reader(bytes(buf[:end])).read() == value, vector["name"]
    assert end == len(vector["hex"]) // 2, vector["name"]
    if ordered(value):
        assert bytes(buf[:end]).hex() == vector["hex"], vector["name"]
        same += 1
print(same)
"""
    assert int(with_vectors.run(PRELUDE + script)) >= 50


def test_what_is_cut_off_or_damaged_is_refused_and_nothing_worse(with_vectors: Interpreter) -> None:
    script = """
import random
random.seed(1)
for vector in vectors:
    raw = bytes.fromhex(vector["hex"])
    for end in range(len(raw)):
        assert refused(raw[:end]), vector["name"]
    for _ in range(40):
        damaged = bytearray(raw)
        damaged[random.randrange(len(raw))] = random.getrandbits(8)
        refused(bytes(damaged))
for text in ("c101", "f97e00", "f97c00", "fb7ff0000000000000", "a1016161", "a2616101616102", "61ff", "1c",
             "ff", "f8ff",
             "5f4101ff", "81" * 17 + "00", "9bffffffffffffffff00"):
    assert refused(bytes.fromhex(text)), text
"""
    with_vectors.run(PRELUDE + script)


def test_every_width_that_a_sender_may_choose_is_read(with_vectors: Interpreter) -> None:
    script = """
for text, value in (("1800", 0), ("1900ff", 255), ("1b0000000000000001", 1), ("3b7fffffffffffffff", -(1 <<
63)),
                    ("f93c00", 1.0), ("f9c400", -4.0), ("fa3fc00000", 1.5), ("9f01029fffff", [1, 2, []]),
                    ("bf6161f5ff", {"a": True}), ("9900020102", [1, 2]), ("780161", "a"), ("5801ff",
                    b"\\xff")):
    assert cbor.Reader(bytes.fromhex(text)).read() == value, text
for value in (0, 23, 24, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, -1, -24, -25, -(1
<< 63), 0.1):
    assert cbor.Reader(bytes(buf[: cbor.put(buf, 0, value)])).read() == value, value
"""
    with_vectors.run(PRELUDE + script)


def test_what_does_not_fit_is_refused_and_the_buffer_keeps_its_length(interpreter: Interpreter) -> None:
    script = """
from edgerm import cbor
for value in ([1, "a text"], b"123456789", 1 << 40, 2.5, {"a": [None] * 9}, "x" * 300, ["a"] * 9):
    buf = bytearray(8)
    try:
        cbor.put(buf, 0, value)
        raise AssertionError(value)
    except ValueError:
        assert len(buf) == 8
"""
    interpreter.run(script)
