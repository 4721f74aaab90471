"""Bugs of the kind that people make, planted one at a time to see whether the simulator finds them.

Each names the swarm that its seeds are drawn from: a bug that shows only after a crash of the master is
looked for where masters crash, so that few seeds are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from edgerm_core.agent import records, recovery
from edgerm_core.agent.effects import Effect as AgentEffect
from edgerm_core.agent.effects import Send as AgentSend
from edgerm_core.agent.effects import StartRun
from edgerm_core.agent.records import RunChanged
from edgerm_core.agent.run import Phase, Run
from edgerm_core.agent.runs import Runs
from edgerm_core.agent.session import Session
from edgerm_core.agent.state import Agent
from edgerm_core.interfaces import Write
from edgerm_core.master import agents, frameworks, journal, orders, placement, statuses, tasks
from edgerm_core.master.effects import Effect as MasterEffect
from edgerm_core.master.effects import Send as MasterSend
from edgerm_core.master.records import AgentRecord, OfferRecord, TaskRecord
from edgerm_core.master.state import MasterState
from edgerm_core.messages import Reconcile, StatusUpdate, TaskUpdate
from edgerm_core.tasks import TaskState
from edgerm_core.testing.simulator.disks import AgentDisk
from edgerm_core.testing.simulator.executors import Host
from edgerm_core.testing.simulator.master_node import MasterNode
from edgerm_core.testing.simulator.swarm import GatewayKind, Kind, Swarm

Patch = pytest.MonkeyPatch


class Planted(NamedTuple):
    """A bug.

    Attributes:
        story: what somebody got wrong.
        kinds: what has to happen for it to show.
        plant: puts it in.
        pace_s: fewest and most seconds between two disturbances of one kind.
        long: faults go on for longer.
        scheduler: which one is at work.
        gateway_kinds: what has to happen to gateways and devices; None: there are none.
    """

    story: str
    kinds: tuple[Kind, ...]
    plant: Callable[[Patch], None]
    pace_s: tuple[float, float] = (20.0, 100.0)
    long: bool = False
    scheduler: str = "first-fit"
    gateway_kinds: tuple[GatewayKind, ...] | None = None

    @property
    def swarm(self) -> Swarm:
        """Where it is looked for."""
        faults_s = (300.0, 900.0) if self.long else (60.0, 300.0)
        gateways = (0, 0) if self.gateway_kinds is None else (1, 2)
        return Swarm(
            self.kinds,
            True,
            (1, 3),
            (1, 2),
            (4, 10),
            faults_s,
            self.pace_s,
            self.scheduler,
            gateways,
            self.gateway_kinds or (),
        )


# --- the master's books -----------------------------------------------------------------------


def released_twice(patch: Patch) -> None:
    original = MasterState.release

    def release(self: MasterState, agent: AgentRecord, task_id: Any) -> None:
        holding = agent.holdings.get(task_id)
        original(self, agent, task_id)
        if holding is not None and not agent.overbooked:
            agent.free = agent.free + holding.resources

    patch.setattr(MasterState, "release", release)


def offers_not_held(patch: Patch) -> None:
    original = MasterState.hold_offer

    def hold_offer(self: MasterState, offer: OfferRecord) -> None:
        agent = self.agents[offer.agent_id]
        free = agent.free
        original(self, offer)
        agent.free = free

    patch.setattr(MasterState, "hold_offer", hold_offer)


def room_of_what_is_being_stopped(patch: Patch) -> None:
    original = orders.order_ghost_kill

    def order_ghost_kill(state: MasterState, agent: AgentRecord, task_id: Any, attempt: int) -> None:
        state.drop_ghost(agent, task_id, attempt)
        original(state, agent, task_id, attempt)

    patch.setattr(statuses, "order_ghost_kill", order_ghost_kill)


def slots_not_counted(patch: Patch) -> None:
    patch.setattr(AgentRecord, "tasks_left", property(lambda self: 100))


def end_overwritten(patch: Patch) -> None:
    original = tasks.kill

    def kill(state: MasterState, task: TaskRecord, reason: str, source: str, grace_s: Any = None) -> None:
        if task.state is TaskState.FINISHED:
            task.state = TaskState.KILLED
            state.note(task, reason, source)
        original(state, task, reason, source, grace_s)

    for module in (tasks, frameworks):
        patch.setattr(module, "kill", kill)


# --- the master's words -----------------------------------------------------------------------


def acknowledged_once(patch: Patch) -> None:
    original = statuses.on_status

    def on_status(state: MasterState, agent: AgentRecord, session_id: Any, update: StatusUpdate) -> None:
        task = state.tasks.get(update.task_id)
        if task is not None and task.attempt == update.attempt and update.seq <= task.status_seq:
            return
        original(state, agent, session_id, update)

    patch.setattr(statuses, "on_status", on_status)


def acknowledged_without_effect(patch: Patch) -> None:
    def take_in(state: MasterState, agent: AgentRecord, task: TaskRecord, update: StatusUpdate) -> None:
        if update.state.terminal and task.state is TaskState.UNREACHABLE:
            return  # "It is away, so it cannot have said that."
        original(state, agent, task, update)

    original = statuses.take_in
    patch.setattr(statuses, "take_in", take_in)


def stale_attempt_accepted(patch: Patch) -> None:
    original = statuses.on_status

    def on_status(state: MasterState, agent: AgentRecord, session_id: Any, update: StatusUpdate) -> None:
        task = state.tasks.get(update.task_id)
        if task is not None and update.attempt < task.attempt and task.id in agent.holdings:
            update = msgspec.structs.replace(update, attempt=task.attempt, seq=task.status_seq + 1)
        original(state, agent, session_id, update)

    patch.setattr(statuses, "on_status", on_status)


def ends_not_reconciled(patch: Patch) -> None:
    original = frameworks.reconcile

    def reconcile(state: MasterState, framework: Any, session_id: Any, request: Reconcile) -> None:
        ended, framework.ended = framework.ended, {}
        original(state, framework, session_id, request)
        framework.ended = ended

    patch.setattr(frameworks, "reconcile", reconcile)


def news_in_any_order(patch: Patch) -> None:
    original = frameworks.task_update
    last: dict[Any, TaskUpdate] = {}

    def task_update(state: MasterState, task: TaskRecord) -> TaskUpdate:
        before, last[task.id] = last.get(task.id), original(state, task)
        late = before is not None and task.version % 5 == 0
        return before if late and before is not None else last[task.id]

    patch.setattr(frameworks, "task_update", task_update)


# --- leases and orders ------------------------------------------------------------------------


def lease_too_short(patch: Patch) -> None:
    def lease_s(state: MasterState, agent: AgentRecord) -> float:
        return agent.heartbeat_s * 2 + state.settings.lease_grace_s

    patch.setattr(agents, "lease_s", lease_s)


def lease_not_looked_at_again(patch: Patch) -> None:
    original = agents.on_lease_deadline

    def on_lease_deadline(state: MasterState, agent_id: Any) -> None:
        agent = state.agents.get(agent_id)
        if agent is not None and agent.lease_deadline > state.now:
            return
        original(state, agent_id)

    patch.setattr(agents, "on_lease_deadline", on_lease_deadline)


def kills_sent_once(patch: Patch) -> None:
    original = orders.resend_orders

    def resend_orders(state: MasterState, agent: AgentRecord, *, at_once: bool = False) -> None:
        killing = {t for t in agent.unconfirmed if t in state.tasks and state.tasks[t].kill_reason}
        for task_id in killing:
            del agent.unconfirmed[task_id]
        original(state, agent, at_once=at_once)

    patch.setattr(agents, "resend_orders", resend_orders)


# --- what outlives the master -----------------------------------------------------------------


def sent_before_written(patch: Patch) -> None:
    original = MasterNode._commit

    def _commit(self: MasterNode, process: int) -> None:
        if self.runs_as(process):
            for batch in list(self._staged):
                said: list[MasterEffect] = [effect for effect in batch if isinstance(effect, MasterSend)]
                for effect in said:
                    batch.remove(effect)
                self._carry_out(process, said)
        original(self, process)

    patch.setattr(MasterNode, "_commit", _commit)


def key_forgotten(patch: Patch) -> None:
    original = journal._restore_task

    def _restore_task(state: MasterState, key: bytes, spec: Any, row: Any) -> None:
        original(state, key, spec, row)
        if row.state.terminal:
            state.frameworks[spec.framework_id].keys.pop(spec.key, None)

    patch.setattr(journal, "_restore_task", _restore_task)


def kill_forgotten(patch: Patch) -> None:
    original = journal._restore_task

    def _restore_task(state: MasterState, key: bytes, spec: Any, row: Any) -> None:
        original(state, key, spec, msgspec.structs.replace(row, kill_reason=""))

    patch.setattr(journal, "_restore_task", _restore_task)


def numbers_given_again(patch: Patch) -> None:
    original = journal.restore

    def restore(state: MasterState, rows: Any) -> None:
        original(state, rows)
        state.next_task_id = (
            max((t for t, task in state.tasks.items() if not task.state.terminal), default=0) + 1
        )

    patch.setattr(journal, "restore", restore)


# --- the agent --------------------------------------------------------------------------------


def started_twice(patch: Patch) -> None:
    original = Runs._launched_again

    def _launched_again(self: Runs, key: Any) -> None:
        original(self, key)
        run = self.known.get(key)
        if run is not None and run.phase is Phase.STARTING:
            self._turn.emit(StartRun(run.id, run.launch))

    patch.setattr(Runs, "_launched_again", _launched_again)


def journal_after_the_deed(patch: Patch) -> None:
    original = AgentDisk.append

    def append(self: AgentDisk, payloads: Iterable[bytes]) -> None:
        late = getattr(self, "late", [])
        self.late = list(payloads)  # type: ignore[attr-defined]
        original(self, late)

    patch.setattr(AgentDisk, "append", append)


def restarts_not_recovered(patch: Patch) -> None:
    original = records.restore

    def restore(run: Run, record: RunChanged) -> None:
        original(run, record)
        run.restarts = 0

    patch.setattr(recovery, "restore", restore)


def orphans_live_on(patch: Patch) -> None:
    patch.setattr(Host, "sweep", lambda self, kept: None)


def not_resent_after_reconnect(patch: Patch) -> None:
    original = Agent.handle

    def handle(self: Agent, event: Any, now: float) -> list[AgentEffect]:
        was = self.runs.listening
        effects = original(self, event, now)
        if not was and self.runs.listening:
            for run in self.runs.known.values():
                self.turn.deadlines.set(("resend", *run.key), now + 1e9)
            return [
                e for e in effects if not (isinstance(e, AgentSend) and isinstance(e.message, StatusUpdate))
            ]
        return effects

    patch.setattr(Agent, "handle", handle)


def silence_not_noticed(patch: Patch) -> None:
    original = Session.due

    def due(self: Session, name: str) -> None:
        if name != "silence":
            original(self, name)

    patch.setattr(Session, "due", due)


# --- those that the simulator found, put back -------------------------------------------------


def numbers_of_statuses_not_written(patch: Patch) -> None:
    original = agents.reconcile

    def reconcile(state: MasterState, agent: AgentRecord, reports: Any, *more: Any) -> None:
        before = dict(state.dirty)
        facts = {task_id: (task.version, task.confirmed) for task_id, task in state.tasks.items()}
        original(state, agent, reports, *more)
        for kind, key in list(state.dirty):
            if kind == "task" and (kind, key) not in before:
                task = state.tasks[key]
                if (task.version, task.confirmed) == facts[key]:
                    del state.dirty[kind, key]

    patch.setattr(agents, "reconcile", reconcile)


def change_lost_while_registering(patch: Patch) -> None:
    original = Agent._on_registered

    def _on_registered(self: Agent, message: Any) -> None:
        self._told = self.info
        original(self, message)

    patch.setattr(Agent, "_on_registered", _on_registered)


def strays_take_no_room(patch: Patch) -> None:
    patch.setattr(
        AgentRecord,
        "schedulable",
        property(lambda self: self.state.name == "READY" and self.session_id is not None),
    )


def held_back_for_ever(patch: Patch) -> None:
    patch.setattr(placement, "ASK_AGAIN_S", 1e9)


def restarts_told_without_a_version(patch: Patch) -> None:
    original = statuses.take_in

    def take_in(state: MasterState, agent: AgentRecord, task: TaskRecord, update: StatusUpdate) -> None:
        if task.kill_reason and task.state is TaskState.KILLING and not update.state.terminal:
            task.restarts = update.restarts
        original(state, agent, task, update)

    patch.setattr(statuses, "take_in", take_in)


def time_written_with_new_tasks_alone(patch: Patch) -> None:
    original = journal.take_writes

    def take_writes(state: MasterState) -> list[Write]:
        numbers = ("meta", "") in state.dirty
        return [write for write in original(state) if numbers or write.kind != "meta"]

    patch.setattr(journal, "take_writes", take_writes)


def clock_of_then(patch: Patch) -> None:
    patch.setattr(Runs, "_set_back", lambda self, run: None)


PLANTED: Final[dict[str, Planted]] = {
    "released-twice": Planted("the end of a task gives its resources back twice", (), released_twice),
    "offers-not-held": Planted("an offer that is out does not count as held", (), offers_not_held),
    "room-of-what-is-being-stopped": Planted(
        "a run that was given up frees its resources when it is told to stop, not when it has ended",
        ("cut", "reset"),
        room_of_what_is_being_stopped,
        (10.0, 60.0),
        True,
    ),
    "slots-not-counted": Planted(
        "tasks are placed without counting how many an agent takes at once", (), slots_not_counted
    ),
    "end-overwritten": Planted("a kill changes a task that has ended", ("kill-tasks",), end_overwritten),
    "acknowledged-once": Planted(
        "an update that was seen before is not acknowledged again", ("reset", "nat"), acknowledged_once
    ),
    "acknowledged-without-effect": Planted(
        "an end is acknowledged without being applied, if the agent was away",
        ("cut", "reset"),
        acknowledged_without_effect,
        (10.0, 60.0),
        True,
    ),
    "stale-attempt": Planted(
        "news of an older attempt is taken for news of the current one",
        ("cut", "reset", "drain"),
        stale_attempt_accepted,
        (10.0, 60.0),
        True,
    ),
    "ends-not-reconciled": Planted(
        "a framework that asks after its tasks hears nothing of those that have ended",
        ("framework-dies",),
        ends_not_reconciled,
    ),
    "news-in-any-order": Planted("now and then an older update is told again", (), news_in_any_order),
    "lease-too-short": Planted("the lease is one heartbeat short", ("cut",), lease_too_short),
    "lease-not-looked-at-again": Planted(
        "a lease that was renewed is never looked at again", ("cut", "power"), lease_not_looked_at_again
    ),
    "kills-sent-once": Planted(
        "a kill is not repeated to an agent that comes back",
        ("kill-tasks", "reset", "cut"),
        kills_sent_once,
        (10.0, 40.0),
    ),
    "sent-before-written": Planted(
        "answers leave before the disk has what they say", ("kill-master",), sent_before_written
    ),
    "key-forgotten": Planted(
        "keys of ended tasks are forgotten when the master restarts",
        ("kill-master", "again"),
        key_forgotten,
    ),
    "kill-forgotten": Planted(
        "a kill that is under way is forgotten when the master restarts",
        ("kill-master", "kill-tasks"),
        kill_forgotten,
        (10.0, 40.0),
    ),
    "numbers-given-again": Planted(
        "a restarted master gives the numbers of ended tasks again", ("kill-master",), numbers_given_again
    ),
    "started-twice": Planted("a repeated launch starts the task again", ("slow", "reset"), started_twice),
    "journal-after-the-deed": Planted(
        "the agent's records are written one batch late", ("kill-agent",), journal_after_the_deed
    ),
    "restarts-not-recovered": Planted(
        "an agent forgets how often it has restarted a task", ("kill-agent",), restarts_not_recovered
    ),
    "orphans-live-on": Planted(
        "runs that started just before their agent died are left alone",
        ("kill-agent",),
        orphans_live_on,
        (5.0, 20.0),
    ),
    "not-resent": Planted(
        "what the master has not acknowledged is not sent again after a reconnect",
        ("reset", "cut"),
        not_resent_after_reconnect,
    ),
    "silence-not-noticed": Planted(
        "an agent does not notice that its master says nothing any more",
        ("nat", "kill-master"),
        silence_not_noticed,
    ),
    "status-numbers-not-written": Planted(
        "the number of the last update is lowered in memory and not on the disk",
        ("power", "kill-agent", "agent-disk"),
        numbers_of_statuses_not_written,
        (5.0, 30.0),
    ),
    "change-lost-while-registering": Planted(
        "what changes between Register and Registered is never told",
        ("sick", "unplug", "reset", "master-disk"),
        change_lost_while_registering,
        (5.0, 30.0),
        True,
    ),
    "restarts-without-a-version": Planted(
        "a restart that crosses a kill changes what is told, and not its version",
        ("drain", "kill-tasks", "framework-dies", "slow"),
        restarts_told_without_a_version,
        (5.0, 30.0),
    ),
    "time-not-written": Planted(
        "a master whose clock was set back waits for delays of the old time",
        ("clock", "kill-master"),
        time_written_with_new_tasks_alone,
        (10.0, 50.0),
    ),
    "clock-of-then": Planted(
        "an agent whose clock was set back waits for restarts of the old time",
        ("clock", "kill-agent"),
        clock_of_then,
        (10.0, 50.0),
    ),
    "strays-take-no-room": Planted(
        "tasks are placed beside runs that a forgotten agent came back with",
        ("forget", "reset", "cut"),
        strays_take_no_room,
        (10.0, 60.0),
        True,
    ),
}
"""By name. The last six were not planted at first: the simulator found them."""
