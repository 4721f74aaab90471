"""What this agent runs, and what the master has been told of it.

Rules:

* Orders are level-triggered. A Launch of an attempt that is known changes nothing, one of an older
  attempt is ignored, one of a newer attempt first ends the older one. A Kill ends all attempts up to
  its own, and makes sure that they never start.
* At most one attempt of a task is with its executor (`active`); at most one waits for it (`waiting`).
* Every attempt that the master ordered ends with exactly one final status update, which is repeated
  until acknowledged. Then the attempt is forgotten, except for its last word: a Launch that was
  already on its way when it ended must not start it again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

import msgspec

from edgerm_core.agent.effects import (
    RecoverRun,
    ReleaseAttempt,
    Send,
    StartRun,
    StopRun,
    WriteRecord,
)
from edgerm_core.agent.events import (
    RunCancelled,
    RunEnded,
    RunFetching,
    RunId,
    RunLost,
    RunNotStarted,
    RunProgress,
    RunRecovered,
    RunStarted,
)
from edgerm_core.agent.launches import refusal
from edgerm_core.agent.records import RunForgotten, RunLaunched, record_of
from edgerm_core.agent.restart import next_restart
from edgerm_core.agent.run import Ending, Key, Phase, Run
from edgerm_core.agent.turn import Turn
from edgerm_core.agent.updates import make_update
from edgerm_core.agents import AgentInfo
from edgerm_core.ids import TaskId
from edgerm_core.limits import (
    AGENT_MAX_UNACKNOWLEDGED,
    STATUS_RESEND_BASE_S,
    STATUS_RESEND_MAX_S,
)
from edgerm_core.messages import Acknowledge, Kill, Launch, StatusUpdate, TaskReport
from edgerm_core.tasks import ExitResult, Reason, TaskState

log = logging.getLogger(__name__)

LAST_WORDS_KEPT: Final = 4096
"""Acknowledged ends remembered, oldest forgotten first: at 4,000 short tasks a second one second's
worth, where an order crosses an acknowledgement within one round trip."""

LAST_WORD_RESULT_BYTES: Final = 256
"""Results up to this size are remembered too: a gateway may have acknowledged them that the master
cannot reach, and then this is where the master learns them. Larger ones it learns from the gateway."""

STOPPED: Final = Ending(TaskState.KILLED, Reason.AGENT_REMOVED, "", report=False)
"""For tasks of a master that has disowned this agent: nobody wants to hear of them."""


class Runs:
    """All attempts on this agent.

    Parameters:
        turn: shared with the rest of the machine.
        max_tasks: attempts that may be active or waiting at the same time.

    Attributes:
        known: every attempt that has not ended, or whose end is not acknowledged.
        active: by task, the attempt that is with its executor or between two runs.
        waiting: by task, the attempt that starts when the active one has ended.
        newest: by task, the largest attempt seen, for as long as it is remembered.
        last_words: by task, the acknowledged end of its newest attempt.
        listening: whether the master takes status updates now.
    """

    def __init__(self, turn: Turn, max_tasks: int) -> None:
        self._turn = turn
        self._max_tasks = max_tasks
        self.known: dict[Key, Run] = {}
        self.active: dict[TaskId, Run] = {}
        self.waiting: dict[TaskId, Run] = {}
        self.newest: dict[TaskId, int] = {}
        self.last_words: dict[TaskId, StatusUpdate] = {}
        self.listening = False

    # --- what the master orders ---------------------------------------------------------------

    def launch(self, launch: Launch, info: AgentInfo) -> None:
        """Take a Launch."""
        task_id, attempt = launch.task_id, launch.attempt
        newest = self.newest.get(task_id, 0)
        if attempt < newest:
            log.debug("t%d.%d: launch ignored, attempt %d is known", task_id, attempt, newest)
            return
        if attempt == newest:
            self._launched_again((task_id, attempt))
            return
        if len(self.known) >= AGENT_MAX_UNACKNOWLEDGED:
            # Not answered: the master repeats the order, and by then it may have acknowledged some.
            log.warning("t%d.%d: launch put off: too many unacknowledged ends", task_id, attempt)
            return
        run = Run(launch)
        problem = refusal(launch, info, len(self.active) + len(self.waiting), self._max_tasks)
        self.known[run.key] = run
        self.newest[task_id] = attempt
        self.last_words.pop(task_id, None)
        self._turn.emit(WriteRecord(RunLaunched(launch)))
        if (waiting := self.waiting.get(task_id)) is not None:
            self._finish(waiting, TaskState.KILLED, Reason.REPLACED)
        if (older := self.active.get(task_id)) is not None:
            self._stop(older, Ending(TaskState.KILLED, Reason.REPLACED), older.launch.kill_grace_s)
        if problem is not None:
            self._finish(run, problem.state, problem.reason, problem.message)
        elif task_id in self.active:
            run.phase = Phase.WAITING
            self.waiting[task_id] = run
            self._write(run)
        else:
            # STARTING already: that is what RunLaunched alone means in the journal.
            self.active[task_id] = run
            self._turn.emit(StartRun(run.id, launch))

    def kill(self, kill: Kill) -> None:
        """Take a Kill."""
        task_id = kill.task_id
        ending = Ending(TaskState.KILLED, kill.reason or Reason.KILLED_BY_REQUEST)
        for run in (self.waiting.get(task_id), self.active.get(task_id)):
            if run is not None and run.launch.attempt <= kill.attempt:
                confirm = run.ending is None
                self._stop(run, ending, kill.grace_s)
                if confirm and run.phase is not Phase.ENDED:
                    self._report(run, TaskState.KILLING, ending.reason)
        if (task_id, kill.attempt) in self.known:
            return
        last = self.last_words.get(task_id)
        if last is not None and last.attempt == kill.attempt:
            self._turn.emit(Send(last))
            return
        update = make_update(task_id, kill.attempt, ending.state, ending.reason, at=self._turn.now)
        if kill.attempt > self.newest.get(task_id, 0):
            # A Launch of this attempt may still be on its way, and must not start it.
            self.newest[task_id] = kill.attempt
            self._remember(update)
        self._turn.emit(Send(update))

    def acknowledge(self, message: Acknowledge) -> None:
        """Take an Acknowledge."""
        run = self.known.get((message.task_id, message.attempt))
        if run is None or not run.updates.unacked:
            return
        last = run.updates.unacked[-1]
        if not run.updates.acknowledge(message.seq):
            return
        run.resend_s = STATUS_RESEND_BASE_S
        if run.updates.settled:
            self._turn.deadlines.cancel(("resend", *run.key))
            if run.phase is Phase.ENDED:
                if self.newest.get(message.task_id) == message.attempt:
                    self._remember(_last_word(last))
                self._forget(run)
        elif self._number(run):
            self._write(run)

    def _launched_again(self, key: Key) -> None:
        run = self.known.get(key)
        if run is None:
            if (last := self.last_words.get(key[0])) is not None:
                self._turn.emit(Send(last))
        elif run.phase is not Phase.ENDED and not run.updates.last_seq and run.updates.settled:
            # It takes long to start, and the master asks whether the order arrived.
            self._report(run, TaskState.STARTING, Reason.STARTING)

    # --- what happens to runs -----------------------------------------------------------------

    def on_fetching(self, event: RunFetching) -> None:
        """A blob has to come first."""
        if (run := self._current(event.run)) is not None and run.ending is None:
            self._report(run, TaskState.STARTING, Reason.FETCHING)

    def on_progress(self, event: RunProgress) -> None:
        """Its start takes a while."""
        run = self._current(event.run)
        if run is not None and run.ending is None and run.phase is Phase.STARTING:
            self._report(run, TaskState.STARTING, Reason.STARTING, event.text)

    def on_started(self, event: RunStarted) -> None:
        """The executor runs it."""
        if (run := self._current(event.run)) is None:
            return
        run.enter(Phase.RUNNING)
        run.handle = event.handle
        run.started_at = self._turn.now
        if run.ending is not None:
            self._write(run)
            return
        if run.launch.time_limit_s is not None:
            self._turn.deadlines.set(("limit", *run.key), run.started_at + run.launch.time_limit_s)
        self._report(run, TaskState.RUNNING, Reason.STARTED)

    def on_recovered(self, event: RunRecovered) -> None:
        """It survived the agent's restart."""
        if (run := self._current(event.run)) is None:
            return
        run.handle = event.handle
        self._write(run)

    def on_lost(self, event: RunLost) -> None:
        """It did not survive the agent's restart."""
        if (run := self._current(event.run)) is not None:
            self._lost(run, event.message)

    def on_not_started(self, event: RunNotStarted) -> None:
        """It could not be started."""
        if (run := self._current(event.run)) is None:
            return
        result = ExitResult(False, event.reason, event.message)
        if event.recoverable:
            self._ended(run, result)
        elif run.ending is not None:
            self._finish_as(run, run.ending, result)
        else:
            self._finish(run, event.state, event.reason, event.message)

    def on_cancelled(self, event: RunCancelled) -> None:
        """It was stopped in time."""
        if (run := self._current(event.run)) is not None and run.ending is not None:
            self._finish_as(run, run.ending)

    def on_ended(self, event: RunEnded) -> None:
        """It ended."""
        if (run := self._current(event.run)) is not None:
            self._ended(run, event.result)

    def _current(self, run_id: RunId) -> Run | None:
        run = self.active.get(run_id.task_id)
        if run is None or run.launch.attempt != run_id.attempt or run.restarts != run_id.restarts:
            return None
        return run

    # --- the agent's own restart --------------------------------------------------------------

    def take_up(self, runs: Iterable[Run]) -> None:
        """Go on with the runs of an earlier agent process, master or no master."""
        for run in sorted(runs, key=lambda run: run.key):
            task_id = run.launch.task_id
            self.known[run.key] = run
            self.newest[task_id] = run.launch.attempt
            if run.phase is Phase.WAITING:
                self.waiting[task_id] = run
            elif run.phase is not Phase.ENDED:
                self.active[task_id] = run
        for run in list(self.active.values()):
            self._take_up(run)
        for task_id in [task_id for task_id in self.waiting if task_id not in self.active]:
            self._start(self.waiting.pop(task_id))
        self.master_left()

    def _take_up(self, run: Run) -> None:
        self._set_back(run)
        if run.phase is Phase.RUNNING and run.handle is not None:
            limit_s = run.launch.time_limit_s
            if limit_s is not None and run.ending is None:
                self._turn.deadlines.set(("limit", *run.key), run.started_at + limit_s)
            self._turn.emit(RecoverRun(run.id, run.launch, run.handle))
            if run.ending is not None:
                self._turn.emit(StopRun(run.id, run.launch.kill_grace_s))
        elif run.phase is Phase.DELAYED:
            self._turn.deadlines.set(("restart", *run.key), run.restart_at)
        else:
            # Nobody knows whether it had started: a task that must run once is not started here again.
            self._lost(run, "the agent was restarted while the task was starting")

    def _set_back(self, run: Run) -> None:
        """Bring times on record that lie in the future back to now: the machine's clock has been set back.

        A board without a battery boots in 1970 and would wait for the next restart until today.
        """
        now = self._turn.now
        restart_at = min(run.restart_at, now + run.launch.restart.max_delay_s)
        window_start = min(run.count.window_start, now)
        if run.started_at > now or restart_at < run.restart_at or window_start < run.count.window_start:
            run.started_at = min(run.started_at, now)
            run.restart_at = restart_at
            run.count = msgspec.structs.replace(run.count, window_start=window_start)
            self._write(run)

    def _lost(self, run: Run, message: str) -> None:
        if run.ending is not None:
            self._finish_as(run, run.ending)
            return
        ran_s = self._turn.now - run.started_at if run.phase is Phase.RUNNING else 0.0
        if not self._restart(run, ok=False, ran_s=ran_s, why=message, lost=True):
            self._finish(run, TaskState.FAILED, Reason.AGENT_RESTARTED, message)

    # --- the master comes and goes ------------------------------------------------------------

    def reports(self) -> tuple[TaskReport, ...]:
        """Return what a registration says."""
        return tuple(
            TaskReport(
                run.launch.task_id, run.launch.attempt, run.state, run.restarts, run.updates.last_seq
            )
            for run in self.known.values()
            if run.ending is None or run.ending.report
        )

    def master_came(self, away_s: float) -> None:
        """Send everything that has not been acknowledged, again or for the first time.

        Parameters:
            away_s: see `master_is_away`: it may be a gateway that came.
        """
        self.listening = True
        self.master_is_away(away_s)
        for run in self.known.values():
            if run.updates.settled:
                continue
            run.resend_s = STATUS_RESEND_BASE_S
            for update in run.updates.unacked:
                self._turn.emit(Send(update))
            if self._number(run):
                self._write(run)
            self._await_acknowledgement(run)

    def master_left(self) -> None:
        """Begin to count for tasks that must not go on for long without the master."""
        self.listening = False
        for run in (*self.active.values(), *self.waiting.values()):
            key = ("stop-after", *run.key)
            # It may count already: a gateway had not reached its master for a while.
            if run.launch.stop_after_s is not None and key not in self._turn.deadlines:
                self._turn.deadlines.set(key, self._turn.now + run.launch.stop_after_s)

    def master_is_away(self, away_s: float) -> None:
        """Hear from a gateway for how long it has not reached its master; 0: it reaches it.

        To tasks that must not go on for long without the master it is as if the agent itself were cut off.
        """
        for run in (*self.active.values(), *self.waiting.values()):
            key = ("stop-after", *run.key)
            if not away_s:
                self._turn.deadlines.cancel(key)
            elif run.launch.stop_after_s is not None:
                at = self._turn.now + max(0.0, run.launch.stop_after_s - away_s)
                # The gateway may have been away for longer than this agent, or for less: it was restarted.
                self._turn.deadlines.set(key, min(at, self._turn.deadlines.get(key, at)))

    def disown(self) -> None:
        """Stop and forget everything: the master's books know nothing of it, or are other books."""
        self.last_words.clear()
        for run in list(self.known.values()):
            run.ending = STOPPED
            if run.phase is Phase.ENDED:
                self._forget(run)
            elif run.phase is Phase.WAITING or run.phase is Phase.DELAYED:
                self._finish_as(run, STOPPED)
            else:
                self._write(run)
                self._turn.emit(StopRun(run.id, run.launch.kill_grace_s))
        self.newest = {task_id: run.launch.attempt for task_id, run in self.active.items()}

    @property
    def disowned(self) -> bool:
        """Whether some of what was disowned has not ended yet."""
        return any(run.ending is not None and not run.ending.report for run in self.active.values())

    # --- time ---------------------------------------------------------------------------------

    def due(self, name: str, key: Key) -> None:
        """One of an attempt's deadlines has come."""
        run = self.known.get(key)
        if run is None:
            return
        if name == "resend":
            if self.listening:
                run.resend_s = min(run.resend_s * 2, STATUS_RESEND_MAX_S)
                for update in run.updates.unacked:
                    self._turn.emit(Send(update))
                self._await_acknowledgement(run)
        elif name == "restart":
            if run.phase is Phase.DELAYED:
                self._start(run)
        elif name == "limit":
            limit_s = run.launch.time_limit_s
            message = f"ran longer than its limit of {limit_s:g} s"
            self._stop(run, Ending(TaskState.FAILED, Reason.TIME_LIMIT, message), run.launch.kill_grace_s)
        elif name == "stop-after":
            after_s = run.launch.stop_after_s
            message = f"stopped after {after_s:g} s without the master, as its policy asks"
            ending = Ending(TaskState.FAILED, Reason.STOPPED_WHILE_DISCONNECTED, message)
            self._stop(run, ending, run.launch.kill_grace_s)
        else:
            raise AssertionError(f"no deadline is called {name}")

    # --- the life of one attempt --------------------------------------------------------------

    def _start(self, run: Run) -> None:
        run.enter(Phase.STARTING)
        run.handle = None
        self.active[run.launch.task_id] = run
        self._write(run)
        self._turn.emit(StartRun(run.id, run.launch))

    def _stop(self, run: Run, ending: Ending, grace_s: float) -> None:
        """Begin to end an attempt. The first reason stands; a shorter grace period counts."""
        stop_by = self._turn.now + grace_s
        if run.phase is Phase.ENDED or (run.ending is not None and stop_by >= run.stop_by):
            return
        run.stop_by = stop_by
        if run.ending is None:
            run.ending = ending
            self._turn.deadlines.cancel(("limit", *run.key))
            if run.phase is Phase.WAITING or run.phase is Phase.DELAYED:
                self._finish_as(run, ending)
                return
            self._write(run)
        self._turn.emit(StopRun(run.id, grace_s))

    def _ended(self, run: Run, result: ExitResult) -> None:
        if run.ending is not None:
            self._finish_as(run, run.ending, result)
            return
        ran_s = self._turn.now - run.started_at if run.phase is Phase.RUNNING else 0.0
        why = result.message or result.reason
        if self._restart(run, ok=result.ok, ran_s=ran_s, why=why):
            return
        state = TaskState.FINISHED if result.ok else TaskState.FAILED
        self._finish(run, state, result.reason, result.message, result)

    def _restart(self, run: Run, *, ok: bool, ran_s: float, why: str, lost: bool = False) -> bool:
        restart = next_restart(
            run.launch.restart, run.count, ok=ok, ran_s=ran_s, now=self._turn.now, lost=lost
        )
        if restart is None:
            return False
        delay_s, run.count = restart
        run.enter(Phase.DELAYED)
        run.handle = None
        run.restarts += 1
        run.restart_at = self._turn.now + delay_s
        self._turn.deadlines.cancel(("limit", *run.key))
        self._turn.deadlines.set(("restart", *run.key), run.restart_at)
        self._report(run, TaskState.STARTING, Reason.RESTARTING, why)
        return True

    def _finish_as(self, run: Run, ending: Ending, result: ExitResult | None = None) -> None:
        message = ending.message or (result.message if result is not None else "")
        self._finish(run, ending.state, ending.reason, message, result, report=ending.report)

    def _finish(
        self,
        run: Run,
        state: TaskState,
        reason: str,
        message: str = "",
        result: ExitResult | None = None,
        report: bool = True,
    ) -> None:
        task_id, attempt = run.key
        run.enter(Phase.ENDED)
        run.handle = None
        # Those that most runs never set are cancelled too: a dict lookup each.
        for name in ("limit", "restart", "stop-after"):
            self._turn.deadlines.cancel((name, task_id, attempt))
        if self.active.get(task_id) is run:
            del self.active[task_id]
        elif self.waiting.get(task_id) is run:
            del self.waiting[task_id]
        self._turn.emit(ReleaseAttempt(task_id, attempt))
        if report:
            self._report(run, state, reason, message, result)
        else:
            self._forget(run)
        log.debug("t%d.%d: %s (%s) %s", task_id, attempt, state.name, reason, message)
        if task_id not in self.active and (successor := self.waiting.pop(task_id, None)) is not None:
            self._start(successor)

    def _forget(self, run: Run) -> None:
        """The attempt is over and the master knows, or does not want to."""
        task_id, attempt = run.key
        del self.known[run.key]
        self._turn.deadlines.cancel(("resend", task_id, attempt))
        self._turn.emit(WriteRecord(RunForgotten(task_id, attempt)))
        self._drop_newest(task_id)

    # --- status updates -----------------------------------------------------------------------

    def _report(
        self, run: Run, state: TaskState, reason: str, message: str = "", result: ExitResult | None = None
    ) -> None:
        update = make_update(
            *run.key, state, reason, message, restarts=run.restarts, result=result, at=self._turn.now
        )
        run.updates.report(update)
        if self.listening and self._number(run):
            self._await_acknowledgement(run)
        self._write(run)

    def _number(self, run: Run) -> bool:
        update = run.updates.number()
        if update is None:
            return False
        self._turn.emit(Send(update))
        return True

    def _await_acknowledgement(self, run: Run) -> None:
        key = ("resend", *run.key)
        if key not in self._turn.deadlines:
            self._turn.deadlines.set(key, self._turn.now + run.resend_s)

    def _remember(self, update: StatusUpdate) -> None:
        self.last_words[update.task_id] = update
        if len(self.last_words) > LAST_WORDS_KEPT:
            oldest = next(iter(self.last_words))
            del self.last_words[oldest]
            self._drop_newest(oldest)

    def _drop_newest(self, task_id: TaskId) -> None:
        """Forget the newest attempt's number, unless something of the task is left."""
        newest = self.newest.get(task_id, 0)
        if (
            task_id not in self.last_words
            and task_id not in self.active
            and task_id not in self.waiting
            and (task_id, newest) not in self.known
        ):
            self.newest.pop(task_id, None)

    def _write(self, run: Run) -> None:
        self._turn.emit(WriteRecord(record_of(run)))


def _last_word(update: StatusUpdate) -> StatusUpdate:
    """Return what is remembered of an acknowledged end."""
    if update.result is not None and len(update.result) > LAST_WORD_RESULT_BYTES:
        return msgspec.structs.replace(update, result=None)
    return update
