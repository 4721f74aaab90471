"""Messages to bytes and back. A batch is a CBOR sequence (RFC 8742) of messages (RFC 8949).

Decoding trusts nothing: size, nesting and count are limited before any message is built, msgspec
checks every field's type, and constructors check ranges. Whatever is wrong becomes `DecodeError`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, Final

import cbor2
import msgspec

from edgerm_core.errors import DecodeError, EdgermError
from edgerm_core.limits import MAX_BATCH_MESSAGES, MAX_MESSAGE_BYTES, MAX_NESTING
from edgerm_core.messages import AnyMessage, Message

_TAGS: Final[dict[type[Message], tuple[int, tuple[Any, ...]]]] = {}
"""Message type to its tag and its fields' default values (as builtins; `_REQUIRED` where none)."""

_REQUIRED: Final = object()

_END: Final = secrets.token_bytes(16)
"""Unguessable, so that no peer can forge the end of a frame."""

_END_MARK: Final = cbor2.dumps(_END)


def _shape(message_type: type[Message]) -> tuple[int, tuple[Any, ...]]:
    defaults: list[Any] = []
    for field in msgspec.structs.fields(message_type):
        if field.default_factory is not msgspec.NODEFAULT:
            defaults.append(msgspec.to_builtins(field.default_factory(), builtin_types=(bytes,)))
        elif field.default is not msgspec.NODEFAULT:
            defaults.append(msgspec.to_builtins(field.default, builtin_types=(bytes,)))
        else:
            defaults.append(_REQUIRED)
    tag = message_type.__struct_config__.tag
    assert isinstance(tag, int)
    return tag, tuple(defaults)


class _Frame(msgspec.Struct, array_like=True):
    """Lets msgspec keep what it works out about the union of all messages from call to call."""

    messages: list[AnyMessage]


for _type in AnyMessage.__args__:
    _TAGS[_type] = _shape(_type)


def encode(message: Message) -> bytes:
    """Return one message as CBOR, trailing fields that have their default left out."""
    parts = msgspec.to_builtins(message, builtin_types=(bytes,))
    defaults = _TAGS[type(message)][1]
    end = len(defaults)
    while end and parts[end] == defaults[end - 1] and type(parts[end]) is type(defaults[end - 1]):
        end -= 1
    del parts[end + 1 :]
    return cbor2.dumps(parts)


def encode_batch(messages: Iterable[Message]) -> bytes:
    """Return several messages as one CBOR sequence."""
    return b"".join(map(encode, messages))


def decode_batch(data: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> list[AnyMessage]:
    """Return the messages of one frame.

    Raises:
        DecodeError: if the frame is empty or exceeds a limit, or any part of it is not a message of
            this protocol. Nothing of such a frame is used.
    """
    if not data:
        raise DecodeError("empty frame: expected at least one message")
    if len(data) > max_bytes:
        raise DecodeError(f"frame of {len(data)} bytes exceeds the limit of {max_bytes}")
    # A sequence has no header. Read as one indefinite-length array it is decoded in a single call,
    # many times faster than item by item. A break code inside the data would end that array early;
    # then what stands behind it is not our end mark.
    try:
        raw, end = cbor2.loads(b"\x82\x9f" + data + b"\xff" + _END_MARK, max_depth=MAX_NESTING)
        if end != _END:
            raise DecodeError("not a message: break code outside an array")
        if len(raw) > MAX_BATCH_MESSAGES:
            raise DecodeError(f"frame holds more than {MAX_BATCH_MESSAGES} messages")
        return msgspec.convert([raw], _Frame).messages
    except DecodeError:
        raise
    except (cbor2.CBORError, msgspec.ValidationError, EdgermError) as error:
        raise DecodeError(f"not a message: {error}") from error
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        # cbor2's decoders of dates, decimals and the like raise what their libraries raise.
        raise DecodeError(f"not a message: {type(error).__name__}: {error}") from error
