"""The union of messages: numbers, evolution, version negotiation."""

import msgspec
import pytest

from edgerm_core import messages
from edgerm_core.codec import encode
from edgerm_core.ids import TaskId
from edgerm_core.messages import (
    OLDEST_PROTOCOL_VERSION,
    PROTOCOL_VERSION,
    RETRYABLE_REFUSALS,
    AnyMessage,
    Heartbeat,
    Message,
    RefusalCode,
    StatusUpdate,
    negotiate,
)
from edgerm_core.tasks import TaskState

NUMBERS = {t.__name__: t.__struct_config__.tag for t in AnyMessage.__args__}


def test_every_message_of_the_module_is_in_the_union() -> None:
    defined = {
        value
        for value in vars(messages).values()
        if isinstance(value, type) and issubclass(value, Message) and value is not Message
    }
    assert defined == set(AnyMessage.__args__)


def test_numbers_are_never_given_twice() -> None:
    assert len(set(NUMBERS.values())) == len(NUMBERS)


def test_required_fields_come_first_so_that_a_message_can_grow() -> None:
    for message_type in AnyMessage.__args__:
        required = [field.required for field in msgspec.structs.fields(message_type)]
        assert required == sorted(required, reverse=True), message_type.__name__


def test_the_module_docstring_says_who_sends_each_message() -> None:
    assert messages.__doc__ is not None
    missing = [name for name in NUMBERS if name not in messages.__doc__]
    assert missing == []


@pytest.mark.parametrize(
    ("peer", "agreed"),
    [
        ((1, 1), 1),
        ((1, 9), PROTOCOL_VERSION),
        ((0, 1), 1),
        ((OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION), PROTOCOL_VERSION),
        ((PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 3), None),
        ((0, 0), None),
        ((9, 1), None),
        ((2, 1), None),
    ],
)
def test_the_newest_version_both_speak_is_agreed_on(peer: tuple[int, int], agreed: int | None) -> None:
    assert negotiate(peer) == agreed


def test_only_refusals_that_pass_by_themselves_are_worth_retrying() -> None:
    assert set(RefusalCode) > RETRYABLE_REFUSALS
    assert not RETRYABLE_REFUSALS & {
        RefusalCode.VERSION,
        RefusalCode.REMOVED,
        RefusalCode.UNAUTHENTICATED,
    }


def test_what_a_constrained_link_carries_all_day_is_small() -> None:
    assert len(encode(Heartbeat())) == 2
    assert len(encode(StatusUpdate(TaskId(100_000), 1, 2, TaskState.RUNNING, "started"))) <= 20
