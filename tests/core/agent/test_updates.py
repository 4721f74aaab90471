"""Numbers of status updates: without gaps, never changed, at most WINDOW unacknowledged."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.agent.updates import WINDOW, Updates, make_update
from edgerm_core.ids import TaskId
from edgerm_core.messages import StatusUpdate
from edgerm_core.tasks import TaskState


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.just("report"), st.just("number"), st.integers(0, 30)), max_size=60))
def test_the_master_can_take_whatever_is_numbered_in_order(steps: list[str | int]) -> None:
    updates, reported, sent = Updates(), 0, list[StatusUpdate]()
    for step in steps:
        if step == "report":
            reported += 1
            updates.report(make_update(TaskId(1), 1, TaskState.RUNNING, f"report {reported}"))
        elif step == "number":
            waiting = updates.waiting
            if (update := updates.number()) is not None:
                assert waiting is not None
                assert update.reason == waiting.reason
                sent.append(update)
        elif isinstance(step, int):
            updates.acknowledge(step)
        assert [update.seq for update in sent] == list(range(1, len(sent) + 1))
        assert updates.unacked == sent[len(sent) - len(updates.unacked) :]
        assert len(updates.unacked) <= WINDOW
        assert updates.waiting is None or updates.waiting.reason == f"report {reported}"
