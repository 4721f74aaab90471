"""Messages to bytes and back. A batch is a CBOR sequence (RFC 8742) of messages (RFC 8949).

Decoding trusts nothing: size, nesting and count are limited before any message is built, CBOR tags are
refused, msgspec checks every field's type and range, and constructors check what belongs together.
Whatever is wrong becomes `DecodeError`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, Final, NoReturn

import cbor2
import msgspec

from edgerm_core.errors import DecodeError, EdgermError
from edgerm_core.limits import MAX_BATCH_MESSAGES, MAX_MESSAGE_BYTES, MAX_NESTING
from edgerm_core.messages import AnyMessage, Message, StatusUpdate

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


def _refuse_tag(_value: object, _immutable: bool) -> NoReturn:
    raise DecodeError("not a message: it holds a CBOR tag, and this protocol has none")


# fmt: off
_BUILTIN_TAGS: Final = (
    0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799,
)
# fmt: on
"""Tags that cbor2 would turn into dates, regular expressions, shared references and the like. A peer
could make those cost far more than their bytes; tags it does not know go to its `tag_hook`."""

_TAG_DECODERS: Final = dict.fromkeys(_BUILTIN_TAGS, _refuse_tag)


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


def encode_within(message: Message, max_bytes: int) -> bytes | None:
    """Return one message as CBOR of at most `max_bytes`, or None if it does not fit.

    A status update that does not fit goes without its result, and says so.
    """
    data = encode(message)
    if len(data) > max_bytes and isinstance(message, StatusUpdate):
        text = f"result or message dropped: {len(data)} bytes are more than this connection carries"
        data = encode(msgspec.structs.replace(message, result=None, message=text))
    return data if len(data) <= max_bytes else None


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
        raw, end = cbor2.loads(
            b"\x82\x9f" + data + b"\xff" + _END_MARK,
            tag_hook=_refuse_tag,
            semantic_decoders=_TAG_DECODERS,
            max_depth=MAX_NESTING,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
        if end != _END:
            raise DecodeError("not a message: break code outside an array")
        if len(raw) > MAX_BATCH_MESSAGES:
            raise DecodeError(f"frame holds more than {MAX_BATCH_MESSAGES} messages")
        return msgspec.convert([raw], _Frame).messages
    except DecodeError:
        raise
    except msgspec.ValidationError as error:
        # `$[0]` is the frame that we wrapped around; what follows counts messages, then elements.
        raise DecodeError(f"not a message: {str(error).replace('`$[0]', '`$', 1)}") from error
    except cbor2.CBORError as error:
        if isinstance(error.__cause__, DecodeError):
            raise error.__cause__ from None
        raise DecodeError(f"not a message: {error}") from error
    except EdgermError as error:
        raise DecodeError(f"not a message: {error}") from error
