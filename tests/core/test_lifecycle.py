"""The transition tables of tasks, agents, frameworks and offers: complete, and applied as they stand."""

import enum
from collections.abc import Mapping

import pytest

from edgerm_core import agents, frameworks, offers, tasks
from edgerm_core.errors import TransitionError
from edgerm_core.lifecycle import check_transition
from edgerm_core.tasks import LOSSES, Reason, TaskState

Table = Mapping[enum.IntEnum, frozenset[enum.IntEnum]]
TABLES: dict[str, tuple[type[enum.IntEnum], Table, set[enum.IntEnum]]] = {
    "task": (TaskState, tasks.TRANSITIONS, {s for s in TaskState if s.terminal}),  # type: ignore[dict-item]
    "agent": (agents.AgentState, agents.TRANSITIONS, {agents.AgentState.GONE}),  # type: ignore[dict-item]
    "framework": (
        frameworks.FrameworkState,
        frameworks.TRANSITIONS,  # type: ignore[dict-item]
        {frameworks.FrameworkState.REMOVED},
    ),
    "offer": (
        offers.OfferState,
        offers.TRANSITIONS,  # type: ignore[dict-item]
        {offers.OfferState.ACCEPTED, offers.OfferState.DECLINED, offers.OfferState.RESCINDED},
    ),
}

every_table = pytest.mark.parametrize(("states", "table", "ends"), TABLES.values(), ids=TABLES)


@every_table
def test_every_state_has_a_row_and_steps_lead_to_known_states(
    states: type[enum.IntEnum], table: Table, ends: set[enum.IntEnum]
) -> None:
    assert set(table) == set(states)
    assert all(row <= set(states) for row in table.values())


@every_table
def test_exactly_the_final_states_have_empty_rows(
    states: type[enum.IntEnum], table: Table, ends: set[enum.IntEnum]
) -> None:
    assert {state for state, row in table.items() if not row} == ends


@every_table
def test_from_every_state_an_end_can_be_reached_and_every_state_is_reached_from_the_first(
    states: type[enum.IntEnum], table: Table, ends: set[enum.IntEnum]
) -> None:
    def reachable(start: enum.IntEnum) -> set[enum.IntEnum]:
        seen = {start}
        waiting = [start]
        while waiting:
            new = table[waiting.pop()] - seen
            seen |= new
            waiting += new
        return seen

    for state in states:
        assert reachable(state) & ends, f"{state.name} can never end"
    assert reachable(min(states)) == set(states)


@every_table
def test_listed_steps_pass_and_all_others_raise_with_the_story(
    states: type[enum.IntEnum], table: Table, ends: set[enum.IntEnum]
) -> None:
    for start in states:
        for finish in states:
            if finish in table[start]:
                check_transition(table, start, finish, "task t1")
            else:
                with pytest.raises(TransitionError) as caught:
                    check_transition(table, start, finish, "task t1", lambda: ["first", "second"])
                assert caught.value.story == ["first", "second"]
                text = str(caught.value)
                assert f"task t1 cannot go from {start.name} to {finish.name}" in text
                assert "first" in text


def test_the_story_is_asked_for_only_when_needed() -> None:
    def story() -> list[str]:
        raise AssertionError("not needed for a step that is listed")

    check_transition(tasks.TRANSITIONS, TaskState.PENDING, TaskState.STAGING, "task t1", story)


def test_final_states_of_tasks_are_those_from_ten_and_only_states_on_agents_hold_resources() -> None:
    for state in TaskState:
        assert state.terminal == (not tasks.TRANSITIONS[state])
        assert not (state.terminal and state.on_agent)
    assert not TaskState.PENDING.on_agent
    assert TaskState.UNREACHABLE.on_agent


def test_losses_are_known_reasons_and_not_the_task_s_fault() -> None:
    assert set(Reason) >= LOSSES
    assert not LOSSES & {Reason.EXIT_CODE, Reason.TRAP, Reason.OUT_OF_MEMORY, Reason.SPEC_INVALID}
