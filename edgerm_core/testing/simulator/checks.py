"""What must hold after every event, of each machine by itself and of all of them together.

The machines' own invariants are theirs (`master.invariants`, `agent.invariants`). Here stands what only
somebody who sees everything can say: what really runs on the hosts, compared with what was promised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from edgerm_core.agent import invariants as agent_invariants
from edgerm_core.agent.records import decode_record, record_of
from edgerm_core.agent.recovery import recover
from edgerm_core.agents import AgentState
from edgerm_core.gateway import invariants as gateway_invariants
from edgerm_core.gateway.standin import StandIn, Upstream
from edgerm_core.ids import AgentId, TaskId
from edgerm_core.limits import LEASE_HEARTBEATS, MAX_STORY_ENTRIES
from edgerm_core.master import invariants as master_invariants
from edgerm_core.master import journal
from edgerm_core.master.events import BatchEnded
from edgerm_core.messages import (
    Acknowledge,
    AnyMessage,
    Heartbeat,
    Kill,
    Launch,
    RelayClose,
    Relayed,
    RelayOpen,
    TaskUpdate,
)
from edgerm_core.resources import count_ranges
from edgerm_core.tasks import LOSSES, Reason, TaskState
from edgerm_core.testing.simulator.world import Failure, World

if TYPE_CHECKING:
    from edgerm_core.agent import events as agent_events
    from edgerm_core.master.events import Event
    from edgerm_core.testing.simulator.agent_node import AgentNode
    from edgerm_core.testing.simulator.executors import Host, RealRun
    from edgerm_core.testing.simulator.gateway_node import GatewayNode
    from edgerm_core.testing.simulator.master_node import MasterNode

REPLAY_EVERY: Final = 25
"""Commits between two comparisons of the books with what the disk would make of them."""

SLACK_S: Final = 0.01
"""By how much a timer may be late."""

GIVEN_UP: Final = (Reason.AGENT_UNREACHABLE, Reason.AGENT_REMOVED)
"""Reasons for which a run may be replaced although nobody knows that it has ended."""

LIMITS: Final = (Reason.TIME_LIMIT, Reason.STOPPED_WHILE_DISCONNECTED, Reason.TOO_MANY_LOSSES)
"""Reasons for FAILED that are not the run's own."""

LOST: Final = (*LOSSES, Reason.TOO_MANY_LOSSES, Reason.AGENT_UNREACHABLE)
"""Reasons for ends that are nobody's fault."""


class Checks:
    """All that is watched while a cluster lives.

    Attributes:
        master, agents, gateways: set by the cluster; gateways are agents, too.
        owners: which framework was told that a task is its own.
        counts: how often something interesting happened, for the summary.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.master: MasterNode | None = None
        self.agents: dict[str, AgentNode] = {}
        self.gateways: dict[str, GatewayNode] = {}
        self.owners: dict[int, str] = {}
        self.counts: dict[str, int] = {}
        self._keys: dict[tuple[str, str], tuple[int, ...]] = {}
        self._kills: set[int] = set()
        self._left: set[str] = set()
        #: Attempts that a killed task had when the kill was promised.
        self._last_attempts: dict[int, int] = {}
        #: The newest run that began on a host, by host and task.
        self._begun: dict[tuple[str, int], tuple[int, int]] = {}
        self._commits = 0
        #: Ends that devices were told to forget while the master's disk did not know them.
        self._owed: dict[tuple[str, int, int], int] = {}
        #: Of each gateway's process: orders that a stand-in was given, less those that it handed on.
        self._orders: dict[tuple[str, int, tuple[str, int, int]], int] = {}
        #: Of each gateway's process: what the master has acknowledged to a device.
        self._acknowledged: dict[tuple[str, str, tuple[str, int, int]], int] = {}
        self._gateway_events = 0
        #: Of each gateway: channels whose device has spoken, and since when the master was to hear of it.
        self._unsaid: dict[tuple[str, int], float] = {}

    def count(self, what: str) -> None:
        """Note that something happened."""
        self.counts[what] = self.counts.get(what, 0) + 1

    # --- the machines -------------------------------------------------------------------------

    def agent_handled(self, node: AgentNode, event: agent_events.Event) -> None:
        """An agent's machine handled an event."""
        assert node.agent is not None
        try:
            agent_invariants.check(node.agent)
        except AssertionError as error:
            raise Failure(f"{node.name}: after {event}: {error}") from error

    def agent_dies(self, node: AgentNode) -> None:
        """An agent's process ends: its records must say what it knows."""
        self.journal_agrees(node)

    def journal_agrees(self, node: AgentNode) -> None:
        """Compare an agent with what its journal would make of it."""
        agent = node.agent
        if agent is None or not agent.session.number:
            return  # It has not begun.
        recovered = recover(map(decode_record, node.disk.told()))
        if recovered.master_id != agent.master_id:
            raise Failure(f"{node.name}: its journal is of master {recovered.master_id!r}")
        known = agent.runs.known
        if recovered.runs.keys() != known.keys():
            raise Failure(f"{node.name}: knows {sorted(known)}, on record are {sorted(recovered.runs)}")
        for key, run in recovered.runs.items():
            then, now = record_of(run), record_of(known[key])
            plain = msgspec.structs.replace(then, unacked=()), msgspec.structs.replace(now, unacked=())
            if plain[0] != plain[1] or not set(now.unacked) <= set(then.unacked):
                raise Failure(f"{node.name}: t{key[0]}.{key[1]} is {now}, on record is {then}")

    # --- gateways -----------------------------------------------------------------------------

    def gateway_handled(self, node: GatewayNode, event: object) -> None:
        """A gateway's machine handled an event, and what it wrote is with its disk."""
        assert node.gateway is not None
        try:
            gateway_invariants.check(node.gateway, node.config)
        except AssertionError as error:
            raise Failure(f"{node.name}: after {event}: {error}") from error
        self._gateway_events += 1
        if self._gateway_events % REPLAY_EVERY == 0:
            self.custody_agrees(node)
        self._check_owed(node.name)
        self._check_heard(node)

    def device_spoke(self, node: GatewayNode, standin: StandIn | None) -> None:
        """A device said something to a gateway."""
        if standin is not None and standin.channel is not None and standin.upstream is Upstream.OPEN:
            self._unsaid.setdefault((node.name, standin.channel), self.world.now)

    def gateway_tells(
        self, node: GatewayNode, message: RelayOpen | Relayed | RelayClose | Heartbeat
    ) -> None:
        """A gateway says something to the master, which shows that some of its devices live."""
        channels = message.heard if isinstance(message, Heartbeat) else (message.channel,)
        for channel in channels:
            self._unsaid.pop((node.name, channel), None)

    def _check_heard(self, node: GatewayNode) -> None:
        """That a device lives, the master hears with the next heartbeat at the latest."""
        assert node.gateway is not None
        assert node.agent is not None
        longest_s = node.agent.session.heartbeat_s + SLACK_S
        for (name, channel), since in list(self._unsaid.items()):
            if name != node.name:
                continue
            standin = node.gateway.uplink.device_on(channel)
            if standin is None:
                del self._unsaid[name, channel]
            elif self.world.now - since > longest_s:
                late_s = self.world.now - since
                raise Failure(
                    f"{name}: {standin.id} spoke {late_s:.3f} s ago, and the master knows nothing"
                )

    def custody_agrees(self, node: GatewayNode) -> None:
        """Compare a gateway's custody with what its journal would make of it."""
        assert node.gateway is not None
        told = list(node.custody_on(node.custody_disk.told()).records())
        if told != list(node.gateway.records()):
            raise Failure(f"{node.name}: has {list(node.gateway.records())}, on record is {told}")

    def master_ordered(self, node: GatewayNode, channel: int, messages: Sequence[AnyMessage]) -> None:
        """The master gave a gateway something for a device."""
        assert node.gateway is not None
        standin = node.gateway.uplink.device_on(channel)
        agent_id = standin.id if standin is not None else node.gateway.uplink.custody_on(channel)
        if agent_id is None:
            return
        for message in messages:
            if not isinstance(message, Launch | Kill | Acknowledge):
                continue
            key = (node.name, agent_id, _about(message))
            if not isinstance(message, Acknowledge):
                if standin is not None:
                    order = (node.name, standin.number, _about(message))
                    self._orders[order] = self._orders.get(order, 0) + 1
            else:
                self._acknowledged[key] = max(message.seq, self._acknowledged.get(key, 0))
                self._owed.pop((agent_id, int(message.task_id), message.attempt), None)

    def gateway_says(
        self, node: GatewayNode, agent_id: str, standin: int, messages: Sequence[AnyMessage]
    ) -> None:
        """A gateway hands on the orders that it was given, and acknowledges what is safe.

        Parameters:
            standin: number of the stand-in. What was ordered before the device left, or was restarted, is
                not for it.
        """
        for message in messages:
            if isinstance(message, Launch | Kill):
                self.count("relayed orders")
                key = (node.name, standin, _about(message))
                self._orders[key] = self._orders.get(key, 0) - 1
                if self._orders[key] < 0:
                    raise Failure(f"{node.name}: gives {agent_id} what the master did not order: {message}")
            elif isinstance(message, Acknowledge):
                self._check_acknowledged(node, agent_id, message)

    def _check_acknowledged(self, node: GatewayNode, agent_id: str, ack: Acknowledge) -> None:
        """What a device may forget, the master has acknowledged, or is on the gateway's disk for good."""
        if self._acknowledged.get((node.name, agent_id, _about(ack)), 0) >= ack.seq:
            self.count("relayed acknowledgements")
            return
        held = node.custody_on(node.custody_disk.durable()).find(
            AgentId(agent_id), (ack.task_id, ack.attempt), ack.seq
        )
        if held is None:
            raise Failure(f"{node.name}: tells {agent_id} that {ack} is safe, and no disk has it")
        self.count("acknowledgements from custody")
        if held.update.state.terminal:
            self._owed[agent_id, int(ack.task_id), ack.attempt] = held.update.seq

    def _master_knows(self, task_id: int, attempt: int, seq: int) -> bool:
        """Return whether the master's disk has that update, or one that makes it needless."""
        assert self.master is not None
        raw = self.master.disk.records.get("task", {}).get(task_id.to_bytes(8, "big"))
        if raw is None:
            return True
        row = msgspec.msgpack.decode(raw, type=journal.TaskRow)
        known = row.attempt == attempt and row.status_seq >= seq
        return known or row.attempt > attempt or row.state.terminal

    def _check_owed(self, name: str) -> None:
        """An end that a device has forgotten is in some custody until the master's disk has it."""
        for key, seq in list(self._owed.items()):
            agent_id, task_id, attempt = key
            held = any(
                node.custody().find(AgentId(agent_id), (TaskId(task_id), attempt), seq)
                for node in self.gateways.values()
            )
            if not held and not self._master_knows(task_id, attempt, seq):
                raise Failure(f"{name}: the end of t{task_id}.{attempt} on {agent_id} is lost")
            if not held:
                del self._owed[key]

    def gateway_died(self, node: GatewayNode) -> None:
        """A gateway's process is gone; what it answers for must be on its disk."""
        self._check_owed(node.name)
        self._unsaid = {key: since for key, since in self._unsaid.items() if key[0] != node.name}
        self._orders = {key: count for key, count in self._orders.items() if key[0] != node.name}
        self._acknowledged = {key: seq for key, seq in self._acknowledged.items() if key[0] != node.name}

    def agent_refused(self, node: AgentNode) -> None:
        """An agent was told to give up for good."""
        raise Failure(f"{node.name}: was refused for good: {node.refused}")

    def records_were_lost(self, node: AgentNode) -> None:
        """What had begun there since may begin again with the same fence."""
        for key in [key for key in self._begun if key[0] == node.name]:
            del self._begun[key]
        node.host.fences.clear()

    def master_started(self, node: MasterNode) -> None:
        """A master took up its records."""
        self._check_master(node, "taking up its records")

    def master_handled(self, node: MasterNode, event: Event) -> None:
        """The master's machine handled an event."""
        if isinstance(event, BatchEnded):
            self._check_leases(node)
            self._check_slots(node)
        if not isinstance(getattr(event, "message", None), Heartbeat):
            self._check_master(node, event)

    def _check_leases(self, node: MasterNode) -> None:
        """Who is silent for three heartbeats and the grace is unreachable, and nobody else."""
        assert node.machine is not None
        state = node.machine.state
        for agent in state.agents.values():
            silent_s = state.now - agent.last_heard
            longest_s = agent.heartbeat_s * LEASE_HEARTBEATS + state.settings.lease_grace_s
            away = agent.state is AgentState.UNREACHABLE
            if agent.state in (AgentState.READY, AgentState.DRAINING) and silent_s > longest_s + SLACK_S:
                raise Failure(f"m: {agent.id} is {agent.state.name} and silent for {silent_s:.3f} s")
            just_now = away and agent.unreachable_since == state.now and node.up_s > longest_s
            if just_now and silent_s < longest_s - SLACK_S:
                raise Failure(f"m: {agent.id} is UNREACHABLE and silent for {silent_s:.3f} s only")

    def _check_slots(self, node: MasterNode) -> None:
        """Nobody is given more tasks at once than it says it takes; what is being stopped there counts."""
        assert node.machine is not None
        for agent in node.machine.state.agents.values():
            given, most = len(agent.holdings) + len(agent.ghosts), agent.info.max_tasks
            if 0 < most < given:
                raise Failure(f"m: {agent.id} was given {given} tasks at once, it takes {most}")

    def _check_master(self, node: MasterNode, after: object) -> None:
        assert node.machine is not None
        try:
            master_invariants.check(node.machine.state)
        except AssertionError as error:
            raise Failure(f"m: after {after}: {error}") from error

    def master_committed(self, node: MasterNode) -> None:
        """The master's disk has taken a batch."""
        self._commits += 1
        if self._commits % REPLAY_EVERY == 0:
            self.disk_agrees(node)

    def disk_agrees(self, node: MasterNode) -> None:
        """Compare the books with the disk, where nothing is under way between them."""
        state = node.machine.state if node.machine is not None else None
        if state is None or state.dirty or node.busy:
            return
        keys: dict[str, dict[bytes, object]] = {
            "task": {task_id.to_bytes(8, "big"): task_id for task_id in state.tasks},
            "spec": {task_id.to_bytes(8, "big"): task_id for task_id in state.tasks},
            "framework": {framework_id.encode(): framework_id for framework_id in state.frameworks},
            "agent": {agent_id.encode(): agent_id for agent_id in state.agents},
        }
        for kind, wanted in keys.items():
            there = node.disk.records.get(kind, {})
            if wanted.keys() != there.keys():
                raise Failure(f"m: {kind} records are {sorted(there)}, the books have {sorted(wanted)}")
            for raw, key in wanted.items():
                write = journal._write(state, kind, key)
                if kind != "agent" and write.value != there[raw]:
                    difference = _difference(write.value, there[raw])
                    raise Failure(f"m: the record of {kind} {key} is not what the books say: {difference}")
                if kind == "agent" and _agent(write.value) != _agent(there[raw]):
                    now, then = _agent(write.value), _agent(there[raw])
                    raise Failure(f"m: agent {key} is {now}, on record is {then}")

    # --- what really runs ---------------------------------------------------------------------

    def run_begins(self, host: Host, run: RealRun) -> None:
        """A start has begun on a host."""
        self.count("runs")
        task_id, attempt, restarts = run.key
        where = f"{host.name}: {run} ({run.launch.name}) begins"
        for other in host.live():
            if other is not run and other.key[0] == task_id:
                raise Failure(f"{where} while {other} lives there")
        before = self._begun.get((host.name, task_id))
        if before is not None and (attempt, restarts) <= before:
            raise Failure(f"{where}, and {before} has begun there before")
        self._begun[host.name, task_id] = attempt, restarts
        self._check_room(host, where)
        last = self._last_attempts.get(task_id)
        if last is not None and attempt > last:
            raise Failure(f"{where}, and its kill was promised in attempt {last}")
        for node in self.agents.values():
            if node.host is not host:
                for other in node.host.live():
                    if other.key[0] == task_id:
                        self._check_overlap(where, host, run, node.host, other)

    def _check_room(self, host: Host, where: str) -> None:
        most = self.agents[host.name].plan.max_tasks
        if len(host.live()) > most:
            raise Failure(f"{where}: {len(host.live())} tasks run there at once, it takes {most}")
        totals = self.agents[host.name].totals
        pieces = [run.launch.resources for run in host.live()]
        used = host.used()
        if not totals.contains(used):
            raise Failure(f"{where}: runs there hold [{used}] of [{totals}]")
        for name in totals.ranges:
            if sum(count_ranges(each.ranges.get(name, ())) for each in pieces) != count_ranges(
                used.ranges.get(name, ())
            ):
                raise Failure(f"{where}: two runs there hold the same {name}")

    def _check_overlap(self, where: str, host: Host, run: RealRun, there: Host, other: RealRun) -> None:
        older, its_host = (run, host) if run.key[1] < other.key[1] else (other, there)
        if run.key[1] == other.key[1]:
            raise Failure(f"{where} while the same attempt lives on {there.name}")
        given_up = self._given_up(older.key[0])
        if given_up is not None and (its_host.name, older.key[1]) not in given_up:
            raise Failure(f"{where} while {other} lives on {there.name}: nobody had given {older} up")
        self.count("overlaps")

    def _given_up(self, task_id: int) -> set[tuple[str, int]] | None:
        """Return (agent, attempt) of the task's runs that the master's disk says were given up.

        None: its story is so long that a part was left out, and does not say.
        """
        assert self.master is not None
        raw = self.master.disk.records.get("task", {}).get(task_id.to_bytes(8, "big"))
        if raw is None:
            return set()
        row = msgspec.msgpack.decode(raw, type=journal.TaskRow)
        if len(row.story) >= MAX_STORY_ENTRIES:
            self.count("overlaps of tasks with a long story")
            return None
        return {
            (entry.agent_id, entry.attempt)
            for entry in row.story
            if entry.reason in GIVEN_UP and entry.state is not TaskState.UNREACHABLE
        } | {
            (entry.agent_id, entry.attempt)
            for entry in row.story
            if entry.reason in GIVEN_UP and row.attempt > entry.attempt
        }

    # --- what frameworks are told -------------------------------------------------------------

    def submitted(self, framework: str, key: str, ids: tuple[int, ...]) -> None:
        """A framework was told which tasks a key made."""
        known = self._keys.setdefault((framework, key), ids)
        if known != ids:
            raise Failure(f"{framework}: {key} made {known}, and now {ids}")
        for task_id in ids:
            if self.owners.setdefault(task_id, f"{framework}/{key}") != f"{framework}/{key}":
                raise Failure(f"t{task_id} is {self.owners[task_id]}'s, and now {framework}/{key}'s")

    @property
    def promised(self) -> Mapping[tuple[str, str], tuple[int, ...]]:
        """Tasks by framework and key, as the frameworks were told."""
        return self._keys

    def framework_leaves(self, framework: str) -> None:
        """A framework unsubscribed or was removed: its tasks may be killed."""
        self._left.add(framework)

    def kill_wanted(self, task_id: int) -> None:
        """Somebody who may do so wants a task dead."""
        self._kills.add(task_id)

    def kill_promised(self, task_id: int) -> None:
        """The master said that a task will be killed."""
        assert self.master is not None
        raw = self.master.disk.records.get("task", {}).get(task_id.to_bytes(8, "big"))
        if raw is not None:
            row = msgspec.msgpack.decode(raw, type=journal.TaskRow)
            self._last_attempts.setdefault(task_id, row.attempt)

    @property
    def killed(self) -> set[int]:
        """Tasks of which the master said that they will be killed."""
        return set(self._last_attempts)

    def end_told(self, framework: str, update: TaskUpdate) -> None:
        """A framework was told how a task ended: that must be what happened."""
        self.count(update.state.name)
        where = f"{framework}: t{update.task_id} is said to be {update.state.name} ({update.reason})"
        state = update.state
        node = self.agents.get(update.agent_id)
        runs = node.host.history.get((int(update.task_id), update.attempt), []) if node else []
        results = [run.result for run in runs if run.result is not None]
        if state is TaskState.FINISHED:
            told = (True, update.reason, update.exit_code, update.result)
            if told not in [(r.ok, r.reason, r.exit_code, r.result) for r in results]:
                raise Failure(f"{where}, but its runs ended so: {results}")
        elif state is TaskState.FAILED and update.exit_code is not None:
            seen = (update.reason, update.exit_code) in [(r.reason, r.exit_code) for r in results]
            if not seen and update.reason not in LIMITS:
                raise Failure(f"{where}, but its runs ended so: {results}")
        elif state is TaskState.KILLED:
            if int(update.task_id) not in self._kills and framework not in self._left:
                raise Failure(f"{where}, but nobody wanted it killed")
        elif state is TaskState.ERROR and not any(run.behaviour.start == "spec" for run in runs):
            self.count("errors without a run")
        elif state in (TaskState.GONE, TaskState.DROPPED) and update.reason not in LOST:
            raise Failure(f"{where}, which is no loss")


def _about(message: Launch | Kill | Acknowledge) -> tuple[str, int, int]:
    """Return what kind of order or acknowledgement it is, and of which attempt."""
    return type(message).__name__, int(message.task_id), message.attempt


def _difference(now: bytes | None, then: bytes) -> str:
    """Return which elements of two rows are not the same."""
    rows = msgspec.msgpack.decode(now or b"\x90"), msgspec.msgpack.decode(then)
    pairs = enumerate(zip(*rows, strict=False))
    return ", ".join(f"element {index} is {a}, not {b}" for index, (a, b) in pairs if a != b)


def _agent(raw: bytes | None) -> object:
    """Return an agent's record without what is not written at once."""
    assert raw is not None
    row = msgspec.msgpack.decode(raw, type=journal.AgentRow)
    away = row.state is AgentState.UNREACHABLE  # Any other state is found out anew after a restart.
    return row.info, away, row.boot_id, row.incarnation, row.old_incarnations, row.drain, row.ghosts
