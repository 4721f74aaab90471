"""Random histories of a whole site: master, two gateways and roaming devices, all of them the real state
machines, with messages that travel one by one, uplinks that are cut, and gateways that die.

What must hold, at every moment: no device is told to forget what is neither on the master's disk nor on a
gateway's; mailboxes and custody are bounded. And once everything is calm: every task has run exactly
once, and the master knows how each of them ended.
"""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest

from edgerm_core.agent import effects as agent_effects
from edgerm_core.agent import events as agent_events
from edgerm_core.agent.events import RunId
from edgerm_core.agent.records import decode_record, encode_record
from edgerm_core.agent.recovery import recover
from edgerm_core.agent.state import Agent
from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.builtin.first_fit import FirstFitScheduler
from edgerm_core.codec import decode_batch, encode_batch
from edgerm_core.gateway import events
from edgerm_core.ids import AgentId, SessionId, TaskId
from edgerm_core.interfaces import TaskHandle
from edgerm_core.master.events import Heard, Received, SessionClosed, SessionOpened
from edgerm_core.messages import (
    Acknowledge,
    AnyMessage,
    Heartbeat,
    KillTasks,
    Refused,
    RelayClose,
    Relayed,
    RelayOpen,
    StatusUpdate,
)
from edgerm_core.resources import Resources
from edgerm_core.tasks import DisconnectPolicy, ExitResult, Reason, TaskState
from edgerm_core.testing.gateways import GatewayBench
from edgerm_core.testing.masters import MasterBench, Peer, ScriptedAgent, spec

STEPS = 250
DEVICES = ("d1", "d2", "d3")
PATIENT = DisconnectPolicy(lost_after_s=1_000_000.0)


class Gate:
    """A gateway with its uplink: messages wait in both directions until they are delivered."""

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.bench = GatewayBench(name=name)
        self.bench.ready = False
        self.own: ScriptedAgent | None = None
        self.down: deque[Relayed | RelayClose] = deque()
        self.sessions: dict[int, SessionId] = {}
        self.channel_of: dict[SessionId, int] = {}

    @property
    def up(self) -> bool:
        return self.own is not None

    def connect(self) -> None:
        self.own = self.site.master.agent(self.bench.name, "cpus:0.001", executors=())
        self.bench.now = self.site.master.now
        self.bench.open_uplink(self.site.master.state.master_id)

    def cut(self) -> None:
        """Whatever was on its way is lost."""
        if self.own is None:
            return
        for session_id in list(self.sessions.values()):
            self.site.master.handle(SessionClosed(session_id, "the gateway's connection ended"))
        self.own.hang_up()
        self.own = None
        self.down.clear()
        self.sessions.clear()
        self.channel_of.clear()
        self.bench.up.clear()
        self.bench.close_uplink()
        self.bench.up.clear()

    def die(self, *, power_cut: bool) -> None:
        self.cut()
        self.bench.restart(power_cut=power_cut)
        for device in self.site.devices.values():
            if device.gate is self:
                device.lose()

    def deliver_up(self) -> bool:
        """Let the master have the next message; as its runner does it."""
        if self.own is None or not self.bench.up:
            return False
        master = self.site.master
        message = self.bench.up.pop(0)
        if isinstance(message, RelayOpen):
            session_id = SessionId(master._sessions + 1)
            master._sessions += 1
            master.peers[session_id] = Peer(master, session_id)
            self.sessions[message.channel] = session_id
            self.channel_of[session_id] = message.channel
            master.handle(
                SessionOpened(
                    session_id,
                    message.peer,
                    via=self.bench.name,
                    age_s=message.age_s,
                    custody_of=AgentId(message.custody_of) if message.custody_of else None,
                )
            )
        elif isinstance(message, Heartbeat):
            found = (self.sessions.get(channel) for channel in message.heard)
            master.handle(Received(self.own.session_id, Heartbeat()), Heard(tuple(s for s in found if s)))
        elif isinstance(message, Relayed):
            session = self.sessions.get(message.channel)
            if session is not None:
                for inner in decode_batch(message.data):
                    master.handle(Received(session, inner))
        else:
            assert isinstance(message, RelayClose)
            session = self.sessions.pop(message.channel, None)
            if session is not None:
                del self.channel_of[session]
                master.handle(SessionClosed(session, message.reason))
        return True

    def collect(self) -> None:
        """Put what the master has said onto the wire."""
        for session_id, channel in list(self.channel_of.items()):
            peer = self.site.master.peers[session_id]
            if peer.inbox:
                self.down.append(Relayed(channel, encode_batch(peer.inbox)))
                peer.inbox = []
            if peer.closed is not None:
                refused = Refused(peer.closed.code, peer.closed.message)
                self.down.append(Relayed(channel, encode_batch([refused])))
                self.down.append(RelayClose(channel, peer.closed.message))
                del self.sessions[channel], self.channel_of[session_id]

    def deliver_down(self) -> bool:
        if not self.down:
            return False
        message = self.down.popleft()
        if isinstance(message, Relayed):
            self.bench.master(message.channel, *decode_batch(message.data))
        else:
            self.bench.tell(events.ChannelClosed(message.channel, message.reason))
        return True


class Device:
    """A real agent, whose runs the test starts and ends."""

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.info = AgentInfo(
            AgentId(name), name, Resources.parse("cpus:2"), {}, (), (Fingerprint("test"),)
        )
        self.journal: list[bytes] = []
        self.lives = 0
        self.home = site.gates[0]
        self.gate: Gate | None = None
        self.session: SessionId | None = None
        self.outbox: deque[AnyMessage] = deque()
        self.starting: list[RunId] = []
        self.running: list[RunId] = []
        self.stopping: set[RunId] = set()
        self.refused_for_good = False
        self.boot()

    def boot(self) -> None:
        self.lives += 1
        self.agent = Agent(
            self.info,
            boot_id="boot",
            incarnation=f"{self.info.id}-{self.lives}",
            masters=1,
            max_tasks=10,
            recovered=recover(map(decode_record, self.journal)),
        )
        self.tell(agent_events.Began())

    def restart(self) -> None:
        """The process dies and comes back; what ran, runs on."""
        if self.gate is not None:
            assert self.session is not None
            self.gate.bench.lose(self.session)
        self.gate = self.session = None
        self.outbox.clear()
        self.starting.clear()
        self.boot()

    @property
    def number(self) -> SessionId:
        return self.agent.session.number

    def tell(self, event: agent_events.Event) -> None:
        for effect in self.agent.handle(event, self.site.master.now):
            match effect:
                case agent_effects.WriteRecord(record):
                    self.journal.append(encode_record(record))
                case agent_effects.Send(message):
                    self.outbox.append(message)
                case agent_effects.Connect():
                    self.site.dialling.append(self)
                case agent_effects.Disconnect():
                    self.lose()
                case agent_effects.StartRun(run):
                    self.site.starts[run.task_id, run.attempt] += 1
                    self.starting.append(run)
                case agent_effects.StopRun(run):
                    self.stopping.add(run)
                case agent_effects.RecoverRun(run, _, handle):
                    self.tell(agent_events.RunRecovered(run, handle))
                case agent_effects.Stop():
                    self.refused_for_good = True

    def dial(self) -> None:
        self.lose(quietly=True)
        self.gate = self.home
        self.gate.bench.now = self.site.master.now
        self.session = self.gate.bench.connect()
        self.gate.bench.ready = False
        self.tell(agent_events.Connected(self.number))

    def lose(self, *, quietly: bool = False) -> None:
        """The connection is gone, with all that was on its way."""
        gate, self.gate = self.gate, None
        self.outbox.clear()
        if gate is not None and self.session is not None and self.session in gate.bench.inboxes:
            gate.bench.lose(self.session)
        self.session = None
        if not quietly and gate is not None:
            self.tell(agent_events.Disconnected(self.number, "gone", self.site.dice.random()))

    def deliver_up(self) -> bool:
        if self.gate is None or self.session is None or not self.outbox:
            return False
        message = self.outbox.popleft()
        if isinstance(message, StatusUpdate) and message.state.terminal:
            self.site.ends[message.task_id, message.attempt] = message.state
            self.site.end_seqs[message.task_id, message.attempt] = message.seq
        self.gate.bench.say(self.session, message)
        return True

    def deliver_down(self) -> bool:
        """Take a frame from the gateway, and check that it may be told."""
        if self.gate is None or self.session is None:
            return False
        bench = self.gate.bench
        closed = bench.closed.get(self.session)
        if not bench.inboxes[self.session] and closed is None:
            bench.fetch(self.session)
        frame, bench.inboxes[self.session] = bench.inboxes[self.session], []
        if closed is not None and closed.refused is not None:
            frame.append(closed.refused)
        for message in frame:
            if isinstance(message, Acknowledge):
                self.site.check_acknowledgement(self, message)
        if frame:
            self.tell(agent_events.FrameReceived(self.number, frame))
        if closed is not None and self.gate is not None:
            self.lose()
        return bool(frame)

    def work(self) -> bool:
        """Let a run get on."""
        dice = self.site.dice
        if self.starting and (not self.running or dice.random() < 0.5):
            run = self.starting.pop(0)
            if run in self.stopping:
                self.tell(agent_events.RunCancelled(run))
            else:
                self.running.append(run)
                self.tell(agent_events.RunStarted(run, TaskHandle("test", data={"run": str(run)})))
            return True
        if self.running:
            run = self.running.pop(dice.randrange(len(self.running)))
            killed = run in self.stopping
            result = ExitResult(not killed, Reason.EXITED, result=b"%d" % run.task_id)
            self.tell(agent_events.RunEnded(run, result))
            return True
        return False


class Site:
    """All of it."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.master = MasterBench(FirstFitScheduler())
        self.dialling: list[Device] = []
        self.starts: Counter[tuple[TaskId, int]] = Counter()
        self.ends: dict[tuple[TaskId, int], TaskState] = {}
        self.end_seqs: dict[tuple[TaskId, int], int] = {}
        self.gates = [Gate(self, "g1"), Gate(self, "g2")]
        for gate in self.gates:
            gate.connect()
        self.devices = {name: Device(self, name) for name in DEVICES}
        self.framework = self.master.framework("f")
        self.tasks: list[TaskId] = []

    def check_acknowledgement(self, device: Device, message: Acknowledge) -> None:
        """Assert that somebody has it on disk: the master, or a gateway that would find it again."""
        key = (message.task_id, message.attempt)
        task = self.master.state.tasks.get(message.task_id)
        if task is None or task.state.terminal or task.attempt > message.attempt:
            return
        if task.attempt == message.attempt and task.status_seq >= message.seq:
            return
        if message.seq < self.end_seqs.get(key, message.seq + 1):
            # Not its end: how it stands comes with the device's next registration, if the master was
            # told that and could not use it.
            return
        for gate in self.gates:
            held = gate.bench.gateway.custody.of(device.info.id).get(key, ())
            if any(h.update.seq >= message.seq for h in held):
                # Without its latest, unsynced records it would still be there.
                assert gate.bench.synced > 0
                return
        raise AssertionError(f"{device.info.id} is to forget {message}, and nobody else has it")

    # --- steps --------------------------------------------------------------------------------

    def exchange(self) -> bool:
        """Let one message travel, somewhere."""
        for gate in self.gates:
            gate.collect()
        moves = [*(g.deliver_up for g in self.gates), *(g.deliver_down for g in self.gates)]
        for device in self.devices.values():
            moves += [device.deliver_up, device.deliver_down]
        self.dice.shuffle(moves)
        return any(move() for move in moves)

    def pass_time(self, seconds: float) -> None:
        """Let everybody notice what is due; each one sees the same clock."""
        end = self.master.now + seconds
        while True:
            due = [
                self.master.machine.next_deadline(),
                *(gate.bench.gateway.next_deadline() for gate in self.gates),
                *(device.agent.next_deadline() for device in self.devices.values()),
            ]
            at = min([d for d in due if d is not None], default=end)
            if at > end:
                break
            self.master.now = max(self.master.now, at)
            self.set_clocks()
            self.master.handle()
            for gate in self.gates:
                if (deadline := gate.bench.gateway.next_deadline()) is not None and deadline <= at:
                    gate.bench.tell(events.Ticked())
            for device in self.devices.values():
                if (deadline := device.agent.next_deadline()) is not None and deadline <= at:
                    device.tell(agent_events.Ticked())
            self.answer_dialling()
        self.master.now = end
        self.set_clocks()
        self.master.handle()

    def set_clocks(self) -> None:
        for gate in self.gates:
            gate.bench.now = self.master.now

    def answer_dialling(self) -> None:
        waiting, self.dialling = self.dialling, []
        for device in waiting:
            device.dial()

    def submit(self) -> None:
        self.tasks += self.master.submit(self.framework, spec(resources="cpus:1", disconnect=PATIENT))

    def step(self, *, restarts: bool) -> None:
        """Let something happen."""
        dice = self.dice
        gate = dice.choice(self.gates)
        device = dice.choice(list(self.devices.values()))
        roll = dice.random()
        if roll < 0.55:
            self.exchange()
        elif roll < 0.70:
            device.work()
        elif roll < 0.76:
            self.submit()
        elif roll < 0.78 and self.tasks:
            self.framework.send(KillTasks(1, (dice.choice(self.tasks),)))
        elif roll < 0.83:
            gate.bench.sync()
        elif roll < 0.87:
            gate.cut() if gate.up else gate.connect()
        elif roll < 0.88:
            gate.die(power_cut=dice.random() < 0.5)
        elif roll < 0.91:
            device.home = dice.choice(self.gates)
            device.lose()
        elif roll < 0.93:
            device.lose()
        elif roll < 0.94 and restarts:
            device.restart()
        else:
            self.pass_time(dice.choice([0.01, 0.3, 2.0, 15.0, 60.0]))
        self.answer_dialling()

    def calm_down(self) -> None:
        """No more faults: everything that is under way comes to its end."""
        for gate in self.gates:
            if not gate.up:
                gate.connect()
        for _ in range(60):
            for _ in range(400):
                for gate in self.gates:
                    gate.bench.sync()
                worked = [device.work() for device in self.devices.values()]
                if not self.exchange() and not any(worked) and not self.dialling:
                    break
                self.answer_dialling()
            if all(task.state.terminal for task in self.master.state.tasks.values()) and not any(
                gate.bench.gateway.custody.agents() for gate in self.gates
            ):
                return
            self.pass_time(20.0)
        stuck = {t.id: t.state.name for t in self.master.state.tasks.values() if not t.state.terminal}
        held = [gate.bench.gateway.custody.agents() for gate in self.gates]
        raise AssertionError(f"it does not come to an end: {stuck}, in custody: {held}")


@pytest.mark.parametrize("seed", range(60))
def test_every_task_runs_once_and_no_end_is_lost(seed: int) -> None:
    site = Site(seed)
    for _ in range(STEPS):
        site.step(restarts=False)
    site.calm_down()
    assert not any(device.refused_for_good for device in site.devices.values())
    assert [key for key, count in site.starts.items() if count > 1] == []
    assert [key for key in site.starts if key[1] > 1] == [], "nothing was lost, so nothing was tried again"
    for task in site.master.state.tasks.values():
        said = site.ends.get((task.id, task.attempt), TaskState.KILLED)
        assert task.state == said or task.kill_reason, f"t{task.id}: {task.state.name}, not {said.name}"
        if task.state is TaskState.FINISHED:
            assert task.result == b"%d" % task.id
    finished = [t for t in site.master.state.tasks.values() if t.state is TaskState.FINISHED]
    assert len(finished) > 3, "the history was one"


@pytest.mark.parametrize("seed", range(100, 140))
def test_devices_that_restart_too_lose_no_task(seed: int) -> None:
    site = Site(seed)
    for _ in range(STEPS):
        site.step(restarts=True)
    site.calm_down()
    assert not any(device.refused_for_good for device in site.devices.values())
    for (task_id, attempt), count in site.starts.items():
        assert count == 1, f"attempt {attempt} of t{task_id} was started {count} times"
