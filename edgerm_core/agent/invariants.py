"""What holds of an agent after every event. Tests check it after each one; daemons never do."""

from __future__ import annotations

from edgerm_core.agent.run import Phase
from edgerm_core.agent.runs import LAST_WORDS_KEPT, Runs
from edgerm_core.agent.session import GREETING, HEARTBEAT, RECONNECT, SILENCE, SessionState
from edgerm_core.agent.state import Agent
from edgerm_core.agent.updates import WINDOW


def check(agent: Agent) -> None:
    """Check every invariant.

    Raises:
        AssertionError: naming the first that does not hold.
    """
    _check_session(agent)
    _check_places(agent.runs)
    _check_updates(agent)


def _check_session(agent: Agent) -> None:
    session, deadlines = agent.session, agent.turn.deadlines
    assert session.registered == (HEARTBEAT in deadlines) or session.state is SessionState.CLOSING, (
        "a heartbeat is due exactly while registered"
    )
    assert session.registered == (SILENCE in deadlines) or session.state is SessionState.CLOSING, (
        "the lease is watched exactly while registered"
    )
    if session.state is SessionState.GREETING:
        assert GREETING in deadlines, "nobody would notice an answer that never comes"
    if session.state is SessionState.OFFLINE and session.number:
        assert RECONNECT in deadlines or session.held, "nobody would dial again"
    if session.held:
        assert agent.runs.disowned, "held although nothing is being stopped"
    if agent.runs.listening:
        assert session.state not in (
            SessionState.OFFLINE,
            SessionState.CONNECTING,
            SessionState.GREETING,
        ), "status updates would go nowhere"
    assert not agent.turn.effects, "effects left behind"


def _check_places(runs: Runs) -> None:
    for task_id, run in runs.active.items():
        assert run.launch.task_id == task_id, f"{run} is filed under t{task_id}"
        assert run.phase in (Phase.STARTING, Phase.RUNNING, Phase.DELAYED), (
            f"{run} is active in {run.phase}"
        )
        assert (run.handle is not None) == (run.phase is Phase.RUNNING), f"{run}: handle in {run.phase}"
        assert runs.known.get(run.key) is run, f"{run} is active but not known"
    for task_id, run in runs.waiting.items():
        assert run.phase is Phase.WAITING, f"{run} waits in {run.phase}"
        assert runs.known.get(run.key) is run, f"{run} waits but is not known"
        older = runs.active.get(task_id)
        assert older is not None, f"{run} waits for nothing"
        assert older.launch.attempt < run.launch.attempt, f"{run} waits for a newer attempt"
        assert older.ending is not None, f"{run} waits for {older}, which nobody stops"
    for key, run in runs.known.items():
        task_id, attempt = key
        assert run.key == key, f"{run} is filed under {key}"
        assert attempt <= runs.newest.get(task_id, 0), f"{run} is newer than the newest attempt"
        place = runs.waiting if run.phase is Phase.WAITING else runs.active
        assert run.phase is Phase.ENDED or place.get(task_id) is run, f"{run} is in {run.phase} nowhere"
    for task_id, last in runs.last_words.items():
        assert last.state.terminal, f"t{task_id}: last words that are not final"
        assert (task_id, last.attempt) not in runs.known, f"t{task_id}.{last.attempt} ended and did not"
        assert last.attempt == runs.newest.get(task_id), f"t{task_id}: last words of an older attempt"
    assert len(runs.last_words) <= LAST_WORDS_KEPT, "last words are not bounded"
    for task_id in runs.newest:
        something = (
            task_id in runs.active
            or task_id in runs.waiting
            or task_id in runs.last_words
            or (task_id, runs.newest[task_id]) in runs.known
        )
        assert something, f"t{task_id}: remembered for nothing"


def _check_updates(agent: Agent) -> None:
    deadlines = agent.turn.deadlines
    for run in agent.runs.known.values():
        updates = run.updates
        numbers = [update.seq for update in updates.unacked]
        first = updates.last_seq - len(numbers) + 1
        assert numbers == list(range(first, updates.last_seq + 1)), f"{run}: numbers {numbers} have gaps"
        assert len(numbers) <= WINDOW, f"{run}: {len(numbers)} unacknowledged updates"
        reported = [*updates.unacked, *([updates.waiting] if updates.waiting else [])]
        ends = [update for update in reported if update.state.terminal]
        if run.phase is Phase.ENDED:
            assert len(ends) == 1, f"{run}: ended, with {len(ends)} final updates to acknowledge"
            assert ends[0] is reported[-1], f"{run}: an update follows the end"
        else:
            assert not ends, f"{run}: reported as ended in {run.phase}"
        if agent.session.registered:
            assert updates.settled or ("resend", *run.key) in deadlines, f"{run}: nothing would be resent"
            assert updates.waiting is None or len(numbers) == WINDOW, f"{run}: an update waits for nothing"
        if run.phase is Phase.DELAYED:
            assert ("restart", *run.key) in deadlines, f"{run}: nothing would restart it"
