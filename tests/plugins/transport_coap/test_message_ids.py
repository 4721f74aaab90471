"""Message ids cannot be guessed, and do not come again soon."""

from __future__ import annotations

import itertools

from edgerm_transport_coap.message_ids import CHOICE, IDS, MessageIds


def test_all_ids_are_used_and_none_comes_again_soon() -> None:
    ids = MessageIds()
    last: dict[int, int] = {}
    for turn in range(4 * IDS):
        drawn = ids.draw()
        assert turn - last.get(drawn, -IDS) > CHOICE
        last[drawn] = turn
    assert 0 <= min(last) <= max(last) < IDS
    assert len(last) > 0.95 * IDS


def test_the_next_one_does_not_follow_from_the_last() -> None:
    """As of two endpoints that have sent as much as one another, and of steps within one."""
    one, other = MessageIds(), MessageIds()
    pairs = [(one.draw(), other.draw()) for _ in range(1000)]
    assert sum(a == b for a, b in pairs) < 10
    steps = {(b - a) % IDS for (a, _), (b, _) in itertools.pairwise(pairs)}
    assert len(steps) > 900
