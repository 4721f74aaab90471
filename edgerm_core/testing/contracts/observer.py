"""What every observer must do: one test for each sentence of `observers.Observer`.

    class TestMyObserver(ObserverContract):
        @pytest.fixture
        def make_observer(self, tmp_path): return lambda: MyObserver(tmp_path / "changes")

        def noted(self, observer): return [...]   # where there is something to look at

The rows are those that a master makes in the life of a small cluster. That a master survives an
observer that raises, names it and calls it no more, is core's side and tested there.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest

from edgerm_core.builtin.first_fit import FirstFitScheduler
from edgerm_core.observers import Observer
from edgerm_core.testing.contracts.alarm import TimelyContract
from edgerm_core.testing.masters import MasterBench, spec

MakeObserver = Callable[[], Observer]
Change = tuple[str, dict[str, Any]]

CALL_S: Final = 0.005
"""A call may take this long on average: the master does nothing else meanwhile."""

PATIENCE_S: Final = 30.0
"""What is closed has ended within this."""

CALLS: Final = 200
"""So many are timed."""

TRIES: Final = 3
"""Of so many the best one counts: a busy machine makes pauses of its own."""


def life_of_a_cluster() -> list[Change]:
    """Return (kind, row) of every change while agents and a framework come, work and go."""
    bench = MasterBench(FirstFitScheduler())
    bench.state.observed = True
    agent, other = bench.agent("a1"), bench.agent("a2", attributes={"zone": "north"})
    framework = bench.framework("f1")
    good, bad, _ = bench.submit(framework, spec("good"), spec("bad"), spec("waits", "cpus:99"))
    for task_id in (good, bad):
        for peer in (agent, other):
            if bench.state.tasks[task_id].agent_id == peer.info.id:
                peer.run_to_end(task_id, ok=task_id == good)
    agent.hang_up()
    framework.hang_up()
    bench.live(120.0, other)
    return [(change.kind, dict(change.row)) for change in bench.changes]


def tell(observer: Observer, changes: Sequence[Change]) -> None:
    """Tell the observer of changes as the master does."""
    for kind, row in changes:
        getattr(observer, f"{kind}_changed")(row)


class ObserverContract(TimelyContract):
    """Subclass it in a test module, as `Test…`, and override `make_observer`."""

    # --- to override --------------------------------------------------------------------------

    @pytest.fixture
    def make_observer(self) -> MakeObserver:
        """A function that makes an observer. All it makes in one test have the same config section."""
        raise NotImplementedError("override the fixture `make_observer`")

    def noted(self, observer: Observer) -> Sequence[tuple[str, str]] | None:
        """Return (kind, id) of what the observer has noted, oldest first, if that can be seen.

        None, unless overridden: an observer may count, or send elsewhere.
        """
        return None

    # --- the suite ----------------------------------------------------------------------------

    @pytest.fixture
    def changes(self) -> list[Change]:
        return life_of_a_cluster()

    def test_it_takes_every_change_in_the_life_of_a_cluster(
        self, make_observer: MakeObserver, changes: list[Change]
    ) -> None:
        assert {kind for kind, _ in changes} == {"task", "agent", "framework"}
        observer = make_observer()
        tell(observer, changes)
        observer.close()

    def test_what_it_notes_is_in_the_order_in_which_it_was_told(
        self, make_observer: MakeObserver, changes: list[Change]
    ) -> None:
        observer = make_observer()
        tell(observer, changes)
        noted = self.noted(observer)
        observer.close()
        if noted is None:
            pytest.skip("the suite does not override `noted`: there is nothing to look at")
        assert list(noted) == [(kind, row["id"]) for kind, row in changes]

    def test_it_leaves_the_rows_as_they_are(
        self, make_observer: MakeObserver, changes: list[Change]
    ) -> None:
        """Every observer is told of the same row."""
        before = copy.deepcopy(changes)
        observer = make_observer()
        tell(observer, changes)
        observer.close()
        assert changes == before

    def test_it_takes_keys_and_states_of_a_later_version(
        self, make_observer: MakeObserver, changes: list[Change]
    ) -> None:
        observer = make_observer()
        tell(observer, [(kind, {**row, "mood": "good", "state": "DREAMING"}) for kind, row in changes])
        observer.close()

    def test_it_takes_any_text_and_bytes(self, make_observer: MakeObserver, changes: list[Change]) -> None:
        """What a task says about itself is anybody's."""
        odd = {"message": "größer\nals 'eine' \"Zeile\" \x1b[31m\0\u2028", "reason": "", "exit_code": None}
        observer = make_observer()
        tell(observer, [(kind, {**row, **odd}) for kind, row in changes if kind == "task"])
        tell(observer, [(kind, {**row, "result": b"\0\xff"}) for kind, row in changes if kind == "task"])
        observer.close()

    def test_it_returns_fast(self, make_observer: MakeObserver, changes: list[Change]) -> None:
        observer = make_observer()
        many = [changes[number % len(changes)] for number in range(CALLS)]
        means_s: list[float] = []
        while len(means_s) < TRIES and min(means_s, default=CALL_S) >= CALL_S:
            started = time.monotonic()
            tell(observer, many)
            means_s.append((time.monotonic() - started) / CALLS)
        observer.close()
        assert min(means_s) < CALL_S, "hand the work to a thread: the master waits for every call"

    def test_closing_is_idempotent(self, make_observer: MakeObserver) -> None:
        observer = make_observer()
        observer.close()
        observer.close()

    def test_closing_leaves_no_thread_that_keeps_the_master_from_ending(
        self, make_observer: MakeObserver, changes: list[Change]
    ) -> None:
        before = set(threading.enumerate())
        observer = make_observer()
        tell(observer, changes)
        observer.close()
        end = time.monotonic() + PATIENCE_S
        for thread in set(threading.enumerate()) - before:
            if not thread.daemon:
                thread.join(max(0.0, end - time.monotonic()))
                assert not thread.is_alive(), f"thread {thread.name} goes on after close"

    def test_the_next_master_can_have_one_like_it(
        self, make_observer: MakeObserver, changes: list[Change]
    ) -> None:
        for _ in range(2):
            observer = make_observer()
            tell(observer, changes)
            observer.close()
