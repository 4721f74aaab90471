"""What any bytes may do to the codec: become messages, or DecodeError; nothing else, at a bounded price."""

import struct
import time
import tracemalloc

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core import limits
from edgerm_core.codec import decode_batch, encode, encode_batch
from edgerm_core.errors import DecodeError
from edgerm_core.ids import OfferId, TaskId
from edgerm_core.messages import (
    AnyMessage,
    Decline,
    Heartbeat,
    HeartbeatAck,
    Kill,
    Query,
    StatusUpdate,
    Submit,
)
from edgerm_core.tasks import Implementation, TaskSpec, TaskState
from edgerm_core.testing.strategies import message_of, messages

BOUNDED = settings(max_examples=200, deadline=None)
MIB = 1 << 20
T1 = TaskId(1)


def tagged(number: int, inner: bytes) -> bytes:
    """Return `inner` under a CBOR tag."""
    if number < 24:
        return bytes([0xC0 | number]) + inner
    if number < 256:
        return bytes([0xD8, number]) + inner
    return b"\xd9" + struct.pack(">H", number) + inner


def in_query(value: bytes) -> bytes:
    """Return a Query with raw CBOR as one of its arguments, where any plain value may stand."""
    return b"\x84\x18\x2a\x01\x61k\xa1\x61a" + value


# --- what is valid comes back as it was ---------------------------------------------------------


@pytest.mark.parametrize("message_type", AnyMessage.__args__, ids=lambda t: t.__name__)
def test_a_message_comes_back_as_it_was(message_type: type[AnyMessage]) -> None:
    @settings(max_examples=30, deadline=None)
    @given(message_of(message_type))
    def check(message: AnyMessage) -> None:
        assert decode_batch(encode(message)) == [message]

    check()


@BOUNDED
@given(st.lists(messages(), min_size=1, max_size=6))
def test_a_batch_comes_back_as_it_was_and_is_the_sum_of_its_messages(batch: list[AnyMessage]) -> None:
    frame = encode_batch(batch)
    assert frame == b"".join(encode(message) for message in batch)
    assert decode_batch(frame) == batch


def test_trailing_defaults_are_left_out() -> None:
    assert encode(Heartbeat()) == b"\x81\x03"
    assert encode(HeartbeatAck()) == b"\x81\x04"
    assert len(cbor2.loads(encode(StatusUpdate(T1, 1, 1, TaskState.RUNNING)))) == 5
    assert len(cbor2.loads(encode(StatusUpdate(T1, 1, 1, TaskState.RUNNING, restarts=1)))) == 8


def test_an_empty_result_is_not_the_same_as_none() -> None:
    update = StatusUpdate(T1, 1, 1, TaskState.FINISHED, result=b"")
    assert decode_batch(encode(update)) == [update]


@BOUNDED
@given(messages(), st.lists(st.integers(0, 99) | st.text() | st.none(), max_size=3))
def test_what_a_later_version_appends_is_ignored(message: AnyMessage, later: list[object]) -> None:
    full = [
        type(message).__struct_config__.tag,
        *(getattr(message, name) for name in message.__struct_fields__),
    ]
    raw = cbor2.loads(encode(message))
    if len(raw) < len(full):
        return  # Fields of this version are still open; what is appended would be taken for them.
    assert decode_batch(cbor2.dumps([*raw, *later])) == [message]


def test_unknown_keys_of_a_spec_are_ignored() -> None:
    frame = cbor2.dumps(
        [22, 1, ["k"], [{"name": "a", "implementations": [{"executor": "process", "soon": 1}], "x": [1]}]]
    )
    assert decode_batch(frame) == [Submit(1, ("k",), (TaskSpec("a", (Implementation("process"),)),))]


def test_indefinite_lengths_and_wide_integers_are_understood() -> None:
    assert decode_batch(b"\x9f\x18\x03\xff") == [Heartbeat()]
    assert decode_batch(b"\x9f\x09\x1b\0\0\0\0\0\0\0\x11\x01\x05\xff") == [Kill(TaskId(17), 1, 5.0)]


# --- limits ----------------------------------------------------------------------------------------


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(DecodeError, match="empty frame"):
        decode_batch(b"")


def test_a_frame_above_the_limit_is_refused_unread() -> None:
    with pytest.raises(DecodeError, match="exceeds the limit of 10"):
        decode_batch(encode(Heartbeat()) * 6, max_bytes=10)


def test_more_messages_than_a_frame_may_hold_are_refused() -> None:
    assert len(decode_batch(encode(Heartbeat()) * limits.MAX_BATCH_MESSAGES)) == limits.MAX_BATCH_MESSAGES
    with pytest.raises(DecodeError, match="more than 4096"):
        decode_batch(encode(Heartbeat()) * (limits.MAX_BATCH_MESSAGES + 1))


def test_nesting_beyond_the_limit_is_refused() -> None:
    with pytest.raises(DecodeError, match="nesting"):
        decode_batch(b"\x81" * 20 + b"\x00")


# --- hostile bytes ---------------------------------------------------------------------------------


def check_outcome(data: bytes) -> None:
    try:
        decoded = decode_batch(data)
    except DecodeError:
        return
    # What was taken can be said again: nothing strange has come in.
    assert decode_batch(encode_batch(decoded)) == decoded


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_decode_or_are_refused(data: bytes) -> None:
    check_outcome(data)


@settings(max_examples=400, deadline=None)
@given(messages(), st.data())
def test_damaged_messages_decode_or_are_refused(message: AnyMessage, data: st.DataObject) -> None:
    frame = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(frame)))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip" if position < len(frame):
                frame[position] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del frame[position : position + data.draw(st.integers(1, 8))]
            case _:
                frame[position:position] = data.draw(st.binary(min_size=1, max_size=8))
    check_outcome(bytes(frame))


@settings(max_examples=200, deadline=None)
@given(messages(), st.sampled_from([0, 1, 2, 4, 5, 25, 28, 29, 30, 35, 36, 37, 256, 258, 260, 55799, 7777]))
def test_a_tag_anywhere_is_refused(message: AnyMessage, tag: int) -> None:
    with pytest.raises(DecodeError):
        decode_batch(tagged(tag, encode(message)))


@pytest.mark.parametrize(
    ("tag", "inner"),
    [
        (0, b"\x60"),
        (1, b"\xfb\x7f\xf0\0\0\0\0\0\0"),
        (2, b"\x41\x01"),
        (2, b"\x5a\x00\x0f\x00\x00" + b"\xff" * 0xF0000),
        (3, b"\x41\x01"),
        (4, b"\x82\x1b" + b"\x7f" + b"\xff" * 7 + b"\x01"),
        (5, b"\x82\x1b" + b"\x7f" + b"\xff" * 7 + b"\x01"),
        (25, b"\x00"),
        (28, b"\x80"),
        (28, b"\x81\xd8\x1d\x00"),  # a list that holds itself
        (29, b"\x00"),
        (30, b"\x82\x01\x00"),
        (35, b"\x6a(a+)+$aaaa"),
        (36, b"\x60"),
        (37, b"\x50" + bytes(16)),
        (54, b"\x50" + bytes(16)),
        (100, b"\x1a\x7f\xff\xff\xff"),
        (256, b"\x81\x61a"),
        (258, b"\x82\x01\x01"),
        (260, b"\x44\x7f\0\0\1"),
        (261, b"\xa1\x44\x7f\0\0\0\x08"),
        (1004, b"\x60"),
        (43000, b"\x82\x01\x02"),
        (55799, b"\x01"),
        (9999, b"\x01"),
    ],
)
def test_every_tag_is_refused_where_any_value_could_stand(tag: int, inner: bytes) -> None:
    with pytest.raises(DecodeError, match="CBOR tag"):
        decode_batch(in_query(tagged(tag, inner)))


@pytest.mark.parametrize(
    "value",
    [
        b"\xf7",  # undefined
        b"\xe0",  # a simple value nobody has defined
        b"\xf9\x7e\x00",  # NaN
        b"\xf9\x7c\x00",  # infinity
        b"\xa1\x01\x01",  # a key that is a number
        b"\xa1\x41a\x01",  # a key that is bytes
        b"\xa2\x61a\x01\x61a\x02",  # a key twice
        b"\x1b" + b"\xff" * 8,  # above 63 bits
        b"\x3b" + b"\xff" * 8,
        b"\x62\xff\xff",  # not UTF-8
        b"\x81\x81\x81\x81\x81\x81\x81\x81\x81\x01",
    ],
)
def test_what_other_languages_could_not_read_back_is_no_plain_value(value: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_batch(in_query(value))


@pytest.mark.parametrize(
    "value", [b"\x01", b"\x61x", b"\x41x", b"\xf4", b"\xf6", b"\x81\x01", b"\xa1\x61b\xfa\x3f\x80\x00\x00"]
)
def test_plain_values_are_taken(value: bytes) -> None:
    assert isinstance(decode_batch(in_query(value))[0], Query)


@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", "-1", "1e300"])
def test_a_duration_that_is_no_duration_is_refused(seconds: str) -> None:
    frame = cbor2.dumps([31, [1], float(seconds)])
    with pytest.raises(DecodeError, match=r"at `\$\[0\]\[2\]`"):
        decode_batch(frame)
    assert decode_batch(cbor2.dumps([31, [1], 7])) == [Decline((OfferId(1),), 7.0)]


@pytest.mark.parametrize(
    "raw",
    [
        [9, 0, 1],
        [9, -1, 1],
        [9, 1 << 63, 1],
        [9, 1, -1],
        [9, True, 1],
        [9, 1.0, 1],
        [9, "1", 1],
        [9, None, 1],
        [6, 1, 1, 0, 4],
        [6, 1, 1, 1, 7],
        [6, 1, 1, 1, 4, "", "", -1],
        [31, [0]],
        [10, 1, b"short", 0, 1],
        [10, 1, bytes(32), -1, 1],
        [2, 1, float("nan"), 1.0],
        [20, [1], ["f"]],
        [42, 1, "k" * 129],
        [50, -1],
        [50],
        [],
        [99],
        ["6"],
        [-6],
        {},
        "text",
        7,
        None,
    ],
)
def test_wrong_values_are_refused(raw: object) -> None:
    with pytest.raises(DecodeError):
        decode_batch(cbor2.dumps(raw))


@pytest.mark.parametrize(
    "resources",
    [
        [{"cpus": 0}],
        [{"cpus": -1}],
        [{"cpus": 10**15 + 1}],
        [{"CPUs": 1}],
        [{"": 1}],
        [{}, {"ports": [[5, 4]]}],
        [{}, {"ports": [[1, 4], [3, 9]]}],
        [{}, {"ports": [[-1, 4]]}],
        [{}, {"ports": []}],
        [{}, {}, {"zones": []}],
        [{}, {}, {}, {"cam0": 0}],
        [{}, {}, {}, {"cam0": 10**9}],
    ],
)
def test_resources_that_make_no_sense_are_refused(resources: list[object]) -> None:
    with pytest.raises(DecodeError):
        decode_batch(cbor2.dumps([1, [1, 1], ["gw-1", "", resources], "boot", "inc"]))


def test_a_break_code_cannot_end_the_frame_early() -> None:
    for data in (b"\xff", b"\x81\x03\xff", b"\x81\x03\xff\x81\x03", b"\xff\x50" + bytes(16)):
        with pytest.raises(DecodeError):
            decode_batch(data)


def test_nothing_of_a_frame_with_one_bad_message_is_used() -> None:
    with pytest.raises(DecodeError):
        decode_batch(encode(Heartbeat()) + b"\x81\x18\x63")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80" * MIB,
        b"\xa0" * MIB,
        b"\x81\x80" * (MIB // 2),
        b"\xf9\x00\x00" * (MIB // 3),
        b"\xe0" * MIB,
        b"\x81" * MIB,
        b"\xc1" * (MIB - 1) + b"\x00",
        b"\x9f" * MIB,
        b"\xbf" * MIB,
        b"\x7f" + b"\x60" * (MIB - 2) + b"\xff",
        b"\x5b" + b"\xff" * 8,
        b"\x7b\x00\x00\x00\x10\x00\x00\x00\x00",
        b"\x9b" + b"\xff" * 8,
        b"\x9a\x7f\xff\xff\xff" * 15,
        b"\xbb\x00\x00\x00\x10\x00\x00\x00\x00",
        in_query(b"\x98\xff" + b"\xa0" * 255),
        b"\x9a\x00\x0f\xf0\x00\x18\x1a\x01" + b"\x01" * 0xFF000,
    ],
    ids=lambda data: f"{data[:4].hex()}x{len(data)}",
)
def test_a_hostile_frame_costs_bounded_time_and_memory(data: bytes) -> None:
    """A list costs Python some 64 bytes, so a frame of a million empty ones is the worst case."""
    tracemalloc.start()
    started = time.process_time()
    try:
        check_outcome(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 * MIB
    # Far above what it takes: the bound is against growth that is not linear in the bytes.
    assert time.process_time() - started < 20
