"""Limits fit each other, carry their unit, and are each used."""

import re
from pathlib import Path

import edgerm_core
from edgerm_core import limits

VALUES = {name: value for name, value in vars(limits).items() if name.isupper()}
ROOT = Path(edgerm_core.__file__).parents[1]


def test_every_limit_is_positive() -> None:
    assert VALUES
    assert all(value > 0 for value in VALUES.values())


def test_what_must_fit_a_frame_fits_it() -> None:
    overhead = 4096
    for part in (
        limits.BLOB_CHUNK_BYTES,
        limits.LOG_CHUNK_BYTES,
        limits.MAX_SPEC_BYTES,
        limits.MAX_RESULT_BYTES,
    ):
        assert part + overhead <= limits.MAX_MESSAGE_BYTES
    assert limits.SESSION_OUTBOX_BYTES >= limits.MAX_MESSAGE_BYTES
    assert limits.BLOB_CACHE_BYTES >= limits.MAX_BLOB_BYTES


def test_an_agent_at_its_task_limit_can_still_register_in_one_frame() -> None:
    longest_report = 1 + 9 + 9 + 1 + 9
    assert limits.AGENT_MAX_TASKS * longest_report < limits.MAX_MESSAGE_BYTES / 2


def test_waiting_times_have_the_right_order() -> None:
    assert limits.RECONNECT_BASE_S < limits.RECONNECT_MAX_S
    assert limits.STATUS_RESEND_BASE_S < limits.STATUS_RESEND_MAX_S
    assert limits.HEARTBEAT_S < limits.HEARTBEAT_CONSTRAINED_S
    assert limits.REFUSE_DEFAULT_S < limits.REFUSE_MAX_S
    assert limits.QUERY_DEFAULT_ROWS <= limits.QUERY_MAX_ROWS


def test_every_limit_is_used_somewhere() -> None:
    sources = [
        path
        for folder in ("edgerm_core", "plugins")
        for path in (ROOT / folder).rglob("*.py")
        if path != Path(limits.__file__)
    ]
    words = set(
        re.findall(r"\b[A-Z][A-Z0-9_]+\b", "\n".join(p.read_text(encoding="utf-8") for p in sources))
    )
    assert sorted(set(VALUES) - words) == []
