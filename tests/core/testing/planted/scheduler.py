"""Schedulers with bugs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from edgerm_core.builtin.first_fit import FirstFitScheduler
from edgerm_core.ids import AgentId, TaskId
from edgerm_core.interfaces import (
    AgentView,
    Decision,
    OfferProposal,
    Placement,
    Scheduler,
    Snapshot,
    TaskView,
)
from edgerm_core.testing.contracts.scheduler import MakeScheduler, SchedulerContract


class Sound(SchedulerContract):
    caught_by: ClassVar[str]
    says: ClassVar[str] = ""
    bug: ClassVar[Callable[[], Scheduler]]

    @pytest.fixture
    def make_scheduler(self) -> MakeScheduler:
        return type(self).bug


class TestSound(Sound):
    bug = FirstFitScheduler


class Seen:
    """A thing of which something is seen in another way."""

    def __init__(self, thing: object, replaced: dict[str, Any]) -> None:
        self._thing = thing
        self._replaced = replaced

    def __getattr__(self, name: str) -> Any:
        return self._replaced[name] if name in self._replaced else getattr(self._thing, name)


def seen(thing: object, **replaced: Any) -> Any:
    return Seen(thing, replaced)


def blind_to(attribute: str, value: object) -> Callable[[], Scheduler]:
    class Blind(FirstFitScheduler):
        def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
            agents: Mapping[AgentId, AgentView] = {
                agent_id: seen(agent, **{attribute: value}) for agent_id, agent in snapshot.agents.items()
            }
            return super().schedule(seen(snapshot, agents=agents))

    return Blind


class TestForgetsHowManyTasksAnAgentTakes(Sound):
    bug = staticmethod(blind_to("tasks_left", 1_000_000))
    caught_by = "test_an_agent_gets_no_more_tasks_than_it_takes"


class TestForgetsHowLargeALaunchMayBe(Sound):
    bug = staticmethod(blind_to("max_message_bytes", 1 << 30))
    caught_by = "test_a_task_goes_nowhere_where_its_launch_is_too_large"


class TestForgetsExecutors(Sound):
    bug = staticmethod(blind_to("executors", frozenset({"docker", "wasm", "process"})))
    caught_by = "test_a_task_goes_only_where_an_executor_runs_it"


class TestForgetsConstraints(Sound):
    bug = staticmethod(blind_to("attributes", {"zone": "south"}))
    caught_by = "test_constraints_hold"


class TestTakesNoAccount(Sound):
    """Looks at what is free, and not at what it has just given away."""

    class bug(FirstFitScheduler):
        def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
            found: list[Decision] = []
            for framework in snapshot.frameworks.values():
                for task in framework.pending:
                    alone = seen(framework, pending=[task], wants_offers=False)
                    found += super().schedule(seen(snapshot, frameworks={framework.id: alone}))
            return found

    caught_by = "test_one_call_does_not_give_the_same_thing_twice"


class TestSharesAnExclusiveDevice(Sound):
    bug = TestTakesNoAccount.bug
    caught_by = "test_an_exclusive_device_is_given_to_one"
    says = "cluster.refusals"


class TestNeverDecidesTwice(Sound):
    class bug(FirstFitScheduler):
        def __init__(self) -> None:
            super().__init__()
            self.decided: set[Decision] = set()

        def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
            new = [d for d in super().schedule(snapshot) if d not in self.decided]
            self.decided.update(new)
            return new

    caught_by = "test_a_refused_decision_is_made_again_when_it_fits"


class TestRemembersOtherBooks(Sound):
    class bug(FirstFitScheduler):
        def __init__(self) -> None:
            super().__init__()
            self.placed: set[TaskId] = set()

        def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
            found = [d for d in super().schedule(snapshot) if getattr(d, "task_id", 0) not in self.placed]
            self.placed.update(d.task_id for d in found if isinstance(d, Placement))
            return found

    caught_by = "test_a_complete_snapshot_means_other_books"


class TestOffersWhatWasRefused(Sound):
    class bug(FirstFitScheduler):
        def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
            return super().schedule(seen(snapshot, refused=lambda *_: False))

    caught_by = "test_what_was_refused_is_not_offered_again_until_there_is_more"


class TestThrowsDice(Sound):
    class bug(FirstFitScheduler):
        def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
            found = list(super().schedule(snapshot))
            random.shuffle(found)
            return found

    caught_by = "test_the_same_input_gives_the_same_decisions"


class TestGivesUpEarly(Sound):
    class bug(FirstFitScheduler):
        def __init__(self) -> None:
            super().__init__()
            self.left = 1500

        def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
            found = super().schedule(snapshot)[: self.left]
            self.left -= len(found)
            return found

    caught_by = "test_a_burst_is_placed_to_the_last_task"


class TestKeepsTheSnapshot(Sound):
    class bug(FirstFitScheduler):
        def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
            if snapshot.complete:
                self.first = snapshot
            return super().schedule(snapshot)

    caught_by = "test_it_keeps_no_snapshot_and_no_agent_that_has_gone"
    says = "it keeps more than ids and numbers"


class TestWritesIntoTheBooks(Sound):
    class bug(FirstFitScheduler):
        def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
            found = super().schedule(snapshot)
            for framework in snapshot.frameworks.values():
                framework.allocated["cpus"] = 1000 * len(found)  # type: ignore[index]
            return found

    caught_by = "test_it_changes_nothing_of_what_it_is_shown"


class TestReturnsPairs(Sound):
    class bug(FirstFitScheduler):
        def schedule(self, snapshot: Snapshot) -> Any:
            return [tuple(decision) for decision in map(_pair, super().schedule(snapshot))]

    caught_by = "test_decisions_are_placements_and_offer_proposals"
    says = "is not a decision"


class TestReturnsNothing(Sound):
    class bug(FirstFitScheduler):
        def schedule(self, snapshot: Snapshot) -> Any:
            return None

    caught_by = "test_decisions_are_placements_and_offer_proposals"
    says = "schedule returned NoneType"


class TestExplainsWithNothing(Sound):
    class bug(FirstFitScheduler):
        def explain(self, task: TaskView, snapshot: Snapshot) -> Any:
            return None

    caught_by = "test_explaining_changes_nothing_and_never_fails"


class TestNeverReturns(Sound):
    class bug(FirstFitScheduler):
        def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
            while snapshot.agents:
                pass
            return []

    @pytest.fixture
    def limit_s(self) -> float:
        return 0.5

    caught_by = "test_constraints_hold"
    says = "this has not returned within 0.5 s"


class TestServesWhoHasGone(Sound):
    """Looks at frameworks once."""

    class bug(FirstFitScheduler):
        def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
            found = super().schedule(snapshot)
            if snapshot.complete:
                self.found = found
            return found or self.found

    caught_by = "test_who_has_gone_is_not_served"


def _pair(decision: Decision) -> tuple[object, object]:
    if isinstance(decision, OfferProposal):
        return decision.framework_id, decision.agent_id
    return decision.task_id, decision.agent_id
