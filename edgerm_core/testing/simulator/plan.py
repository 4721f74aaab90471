"""What will happen, as plain data: drawn from the seed before anything happens, then carried out.

Swarm testing (Groce et al., ISSTA 2012): each seed enables a random part of the faults, at random rates,
on a cluster of random size. A plan in which everything happens all the time finds less, because faults
hide each other's consequences.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from edgerm_core.attributes import Constraint, parse_constraint
from edgerm_core.ids import BlobId
from edgerm_core.resources import Device, DeviceRequest, ResourceRequest
from edgerm_core.tasks import DisconnectPolicy, Implementation, ReschedulePolicy, RestartPolicy, TaskSpec
from edgerm_core.testing.simulator.agent_node import AgentPlan
from edgerm_core.testing.simulator.executors import Behaviour
from edgerm_core.testing.simulator.framework_node import FrameworkPlan
from edgerm_core.testing.simulator.master_node import CrashPoint
from edgerm_core.testing.simulator.network import DOWN, UP, LinkQuality
from edgerm_core.testing.simulator.schedulers import FAULTS as SCHEDULER_FAULTS
from edgerm_core.testing.simulator.world import EPOCH

# --- what can happen --------------------------------------------------------------------------


class Action(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all actions. `at`: virtual seconds since the beginning."""

    at: float


class SwitchOn(Action, frozen=True, tag=True):
    """A new agent's machine is switched on."""

    machine: AgentPlan


class Join(Action, frozen=True, tag=True):
    """A new framework connects."""

    application: FrameworkPlan


class SubmitTasks(Action, frozen=True, tag=True):
    framework: str
    key: str
    spec: TaskSpec


class SubmitAgain(Action, frozen=True, tag=True):
    """A framework submits a key once more."""

    framework: str
    key: str


class KillKey(Action, frozen=True, tag=True):
    """A framework kills the tasks of a key."""

    framework: str
    key: str


class TakeOver(Action, frozen=True, tag=True):
    """A second instance of a framework connects while the first one still is."""

    framework: str


class FrameworkDies(Action, frozen=True, tag=True):
    framework: str
    away_s: float


class Leave(Action, frozen=True, tag=True):
    """A framework unsubscribes."""

    framework: str


class Suppressed(Action, frozen=True, tag=True):
    """A framework wants no offers for a while."""

    framework: str
    for_s: float


class Misbehave(Action, frozen=True, tag=True):
    framework: str
    how: str


class Upload(Action, frozen=True, tag=True):
    """A blob is uploaded to the master."""

    number: int


class Drained(Action, frozen=True, tag=True):
    """The operator drains an agent, and lets it work again later."""

    agent: str
    for_s: float


class Forgotten(Action, frozen=True, tag=True):
    """The operator declares an agent gone."""

    agent: str


class OperatorKills(Action, frozen=True, tag=True):
    framework: str
    key: str


class OperatorAsks(Action, frozen=True, tag=True):
    kind: str
    task_id: int


class Cut(Action, frozen=True, tag=True):
    """Frames are held back, up, down or both ways, of one host or of all of them (`*`)."""

    who: str
    ways: tuple[int, ...]
    for_s: float


class Slow(Action, frozen=True, tag=True):
    """Frames take longer."""

    who: str
    by_s: float
    for_s: float


class Reset(Action, frozen=True, tag=True):
    """A host's connections break."""

    who: str


class NatForgets(Action, frozen=True, tag=True):
    """A NAT forgets a host's connections."""

    who: str


class AgentKilled(Action, frozen=True, tag=True):
    agent: str
    away_s: float


class PowerLost(Action, frozen=True, tag=True):
    """An agent's machine loses its power."""

    agent: str
    away_s: float


class Rebooted(Action, frozen=True, tag=True):
    """An agent's machine is shut down and started again."""

    agent: str
    away_s: float


class Moved(Action, frozen=True, tag=True):
    """A device goes where it reaches one of its servers alone (a gateway, or the master: `m`), and back."""

    agent: str
    to: str
    for_s: float


class AgentDiskFull(Action, frozen=True, tag=True):
    agent: str
    for_s: float


class ExecutorSick(Action, frozen=True, tag=True):
    agent: str
    executor: str
    for_s: float


class Unplugged(Action, frozen=True, tag=True):
    """A device is pulled out, and put back later."""

    agent: str
    device: str
    for_s: float


class ClockSet(Action, frozen=True, tag=True):
    """The wall clock of an agent's machine, or of the master's (`m`), jumps."""

    who: str
    by_s: float


class MasterKilled(Action, frozen=True, tag=True):
    point: CrashPoint
    away_s: float


class MasterStopped(Action, frozen=True, tag=True):
    """The master ends in good order and is started again."""

    away_s: float


class MasterDiskFull(Action, frozen=True, tag=True):
    for_s: float


class MasterDiskSlow(Action, frozen=True, tag=True):
    commit_s: float
    for_s: float


AnyAction = (
    SwitchOn
    | Join
    | SubmitTasks
    | SubmitAgain
    | KillKey
    | TakeOver
    | FrameworkDies
    | Leave
    | Suppressed
    | Misbehave
    | Upload
    | Drained
    | Forgotten
    | OperatorKills
    | OperatorAsks
    | Cut
    | Slow
    | Reset
    | NatForgets
    | Moved
    | AgentKilled
    | PowerLost
    | Rebooted
    | AgentDiskFull
    | ExecutorSick
    | Unplugged
    | ClockSet
    | MasterKilled
    | MasterStopped
    | MasterDiskFull
    | MasterDiskSlow
)


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that will happen, and on what.

    Attributes:
        seed: of the luck that is not in the plan: delays, jitter, who answers first.
        faults_s: how long faults go on; then all of them heal, and the cluster must settle.
        heartbeat_s, recovery_grace_s, offer_timeout_s: the master's settings.
        scheduler: by name; `first-fit` where it is not installed.
        scheduler_fault: what is wrong with it while faults go on; empty: nothing.
        custody_bytes: of each gateway; 0: as by default.
        actions: in order of their times.
    """

    seed: int
    faults_s: float
    heartbeat_s: float = 10.0
    recovery_grace_s: float = 60.0
    offer_timeout_s: float = 60.0
    scheduler: str = "first-fit"
    scheduler_fault: str = ""
    custody_bytes: int = 0
    actions: tuple[AnyAction, ...] = ()


# --- how it is drawn --------------------------------------------------------------------------

BLOBS: Final = 3
"""Different blobs in one plan."""

Kind = Literal[
    "cut", "slow", "reset", "nat", "kill-agent", "power", "reboot", "agent-disk", "sick", "unplug", "clock",
    "kill-master", "stop-master", "master-disk", "drain", "forget", "operator", "take-over",
    "framework-dies", "misbehave", "again", "kill-tasks", "leave", "suppress",
]  # fmt: skip

KINDS: Final[tuple[Kind, ...]] = Kind.__args__  # type: ignore[attr-defined]

GatewayKind = Literal[
    "uplink-cut", "uplink-reset", "kill-gateway", "gateway-power", "gateway-reboot", "gateway-disk",
    "gateway-clock", "gateway-forgotten", "move", "sleep", "radio-reset", "device-restart",
]  # fmt: skip

GATEWAY_KINDS: Final[tuple[GatewayKind, ...]] = GatewayKind.__args__  # type: ignore[attr-defined]


class Swarm(msgspec.Struct, frozen=True):
    """What a seed may draw from; tests of one thing narrow it down.

    Attributes:
        kinds: of faults and disturbances; each seed enables a random part of them.
        all_kinds: enable all of `kinds` in each seed.
        agents, frameworks, submissions: fewest and most of them.
        faults_s: shortest and longest time of faults.
        pace_s: fewest and most seconds between two disturbances of one kind.
        scheduler: which one; empty: drawn.
        gateways: fewest and most of them; half of the seeds that may have none have none.
        gateway_kinds: of faults and disturbances of gateways and their devices, as `kinds`.
    """

    kinds: tuple[Kind, ...] = KINDS
    all_kinds: bool = False
    agents: tuple[int, int] = (1, 5)
    frameworks: tuple[int, int] = (1, 3)
    submissions: tuple[int, int] = (1, 14)
    faults_s: tuple[float, float] = (60.0, 1800.0)
    pace_s: tuple[float, float] = (15.0, 600.0)
    scheduler: str = ""
    gateways: tuple[int, int] = (0, 2)
    gateway_kinds: tuple[GatewayKind, ...] = GATEWAY_KINDS


EVERYTHING: Final = Swarm()


def draw(seed: int, swarm: Swarm = EVERYTHING) -> Plan:
    """Return the plan of a seed."""
    return _Draw(seed, swarm).plan()


class _Draw:
    def __init__(self, seed: int, swarm: Swarm) -> None:
        self._seed = seed
        self._swarm = swarm
        self._luck = random.Random(f"{seed}/plan")
        self._actions: list[AnyAction] = []
        luck = self._luck
        self._faults_s = round(luck.uniform(*swarm.faults_s), 1)
        self._agents = [f"a{n + 1}" for n in range(luck.randint(*swarm.agents))]
        self._frameworks = [f"f{n + 1}" for n in range(luck.randint(*swarm.frameworks))]
        self._keys: list[tuple[str, str]] = []
        self._devices: list[tuple[str, str]] = []

    def plan(self) -> Plan:
        luck = self._luck
        heartbeat_s = luck.choice((1.0, 5.0, 10.0, 10.0))
        for name in self._agents:
            at = 0.0 if luck.random() < 0.7 else self._moment()
            self._actions.append(SwitchOn(at, self._agent(name)))
        for name in self._frameworks:
            at = 0.0 if luck.random() < 0.8 else self._moment()
            self._actions.append(Join(at, self._framework(name)))
        for number in range(luck.randint(*self._swarm.submissions)):
            framework = luck.choice(self._frameworks)
            key = f"w{number}"
            self._keys.append((framework, key))
            at = self._moment() if luck.random() < 0.7 else round(luck.uniform(0.0, 5.0), 3)
            self._actions.append(SubmitTasks(at, framework, key, self._spec(key)))
        for number in range(BLOBS):
            if luck.random() < 0.9:
                self._actions.append(Upload(self._moment() * luck.random(), number))
        for kind in KINDS:
            # Drawn for every kind, so that a narrower swarm leaves the others' luck as it was.
            enabled = luck.random() < 0.35
            pace_s = luck.uniform(*self._swarm.pace_s)
            if kind in self._swarm.kinds and (enabled or self._swarm.all_kinds):
                at = luck.expovariate(1 / pace_s)
                while at < self._faults_s:
                    self._disturb(kind, round(at, 3))
                    at += luck.expovariate(1 / pace_s)
        faulty = luck.choice(SCHEDULER_FAULTS) if luck.random() < 0.15 else ""
        plan = Plan(
            self._seed,
            self._faults_s,
            heartbeat_s,
            luck.choice((10.0, 60.0)),
            luck.choice((10.0, 60.0)),
            self._swarm.scheduler or luck.choice(("first-fit", "drf")),
            faulty,
            actions=tuple(sorted(self._actions, key=lambda action: action.at)),
        )
        return _DrawGateways(plan, self._swarm).plan()

    def _moment(self) -> float:
        return round(self._luck.uniform(0.0, self._faults_s), 3)

    def _while(self) -> float:
        """Return how long something lasts: mostly short, sometimes longer than any lease."""
        return round(self._luck.choice((0.5, 3.0, 20.0, 60.0, 200.0)) * self._luck.uniform(0.3, 1.7), 3)

    # --- who there is -------------------------------------------------------------------------

    def _link(self) -> LinkQuality:
        luck = self._luck
        delay_s, jitter_s = luck.choice(((0.001, 0.001), (0.01, 0.02), (0.1, 0.3), (1.0, 2.0)))
        push = luck.random() < 0.8
        keepalive_s = luck.choice((20.0, 60.0, None)) if push else None
        return LinkQuality(delay_s, jitter_s, push, keepalive_s, 1 << 20 if push else 2048)

    def _agent(self, name: str) -> AgentPlan:
        luck = self._luck
        devices: tuple[Device, ...] = ()
        if luck.random() < 0.4:
            devices = (Device("cam0", "camera"), Device("bus0", "bus", slots=2))
            self._devices += [(name, "cam0"), (name, "bus0")]
        attributes: dict[str, str | int | float | bool] = {"zone": luck.choice(("north", "south"))}
        if luck.random() < 0.15:
            attributes["link.class"] = "constrained"
        return AgentPlan(
            name,
            luck.choice(("cpus:1;mem:128;ports:[31000-31001]", "cpus:4;mem:1024;ports:[31000-31009]")),
            devices,
            attributes,
            self._link(),
            luck.choice((0.1, 2.0)),
            luck.choice((10, 50, 1000)),
            luck.choice((2, 100, 100)),
        )

    def _framework(self, name: str) -> FrameworkPlan:
        luck = self._luck
        link = self._link()
        return FrameworkPlan(
            name,
            luck.choice((1000, 1000, 2500)),
            "",
            luck.choice((None, None, None, 300.0)),
            luck.random() < 0.3,
            luck.choice((20, 50, 90)),
            10,
            luck.random() < 0.9,
            link,
        )

    def _behaviour(self) -> Behaviour:
        luck = self._luck
        start = luck.choices(("well", "fails", "fails-for-good", "spec", "hangs"), (88, 5, 3, 2, 2))[0]
        return Behaviour(
            luck.choice((0.05, 0.5, 5.0)),
            start,
            luck.choice((0.0, 1.0, 10.0, 60.0, 120.0, None)),
            luck.choices(("well", "badly", "trap"), (75, 20, 5))[0],
            luck.choice((0.0, 0.2, 3.0, 30.0)),
            luck.random() < 0.03,
            luck.choice((0.0, 0.0, 0.0, 40.0)),
            luck.choice((0.5, 10.0)),
        )

    def _spec(self, name: str) -> TaskSpec:
        luck = self._luck
        options = self._behaviour().options()
        blob = BlobId(bytes([luck.randrange(BLOBS)]) * 32) if luck.random() < 0.15 else None
        kinds = luck.choice((("process",), ("wasm",), ("process", "wasm")))
        devices: tuple[DeviceRequest, ...] = ()
        if self._devices and luck.random() < 0.3:
            devices = (DeviceRequest(luck.choice(("camera", "bus"))),)
        resources = luck.choice(("cpus:0.1;mem:10", "cpus:0.5;mem:32;ports:1", "cpus:1;mem:100", "cpus:3"))
        constraints: tuple[Constraint, ...] = ()
        if luck.random() < 0.2:
            constraints = (parse_constraint(luck.choice(("zone==north", "zone==south"))),)
        return TaskSpec(
            name,
            tuple(Implementation(kind, blob, options=options) for kind in kinds),
            ResourceRequest.parse(resources, devices),
            {},
            constraints,
            restart=RestartPolicy(
                luck.choice(("never", "failure", "always")),
                luck.choice((1, 3)),
                60.0,
                luck.choice((0.5, 2.0)),
                20.0,
            ),
            reschedule=ReschedulePolicy(
                luck.choice((0, 0, 2)), luck.choice((0, 1, 10, 10)), luck.choice((0.5, 5.0)), 60.0
            ),
            disconnect=DisconnectPolicy(
                luck.choice((0.0, 30.0, 30.0, 120.0)),
                luck.random() < 0.8,
                luck.choice((None, None, None, 20.0, 100.0)),
            ),
            time_limit_s=luck.choice((None, None, None, 5.0, 50.0)),
            kill_grace_s=luck.choice((0.0, 1.0, 5.0, 20.0)),
            instances=luck.choice((1, 1, 1, 2, 4)),
        )

    # --- what happens to them -----------------------------------------------------------------

    def _host(self) -> str:
        return self._luck.choice((*self._agents, *self._agents, *self._frameworks))

    def _disturb(self, kind: Kind, at: float) -> None:
        self._actions.append(_DISTURBANCES[kind](self, at))

    def agent(self) -> str:
        """Return one of the agents."""
        return self._luck.choice(self._agents)

    def framework(self) -> str:
        """Return one of the frameworks."""
        return self._luck.choice(self._frameworks)

    def key(self) -> tuple[str, str]:
        """Return a framework and one of its keys."""
        return self._luck.choice(self._keys or [(self._frameworks[0], "w0")])

    def cut(self, at: float) -> Cut:
        who = "*" if self._luck.random() < 0.15 else self._host()
        return Cut(at, who, self._luck.choice(((UP, DOWN), (UP, DOWN), (UP,), (DOWN,))), self._while())

    def unplug(self, at: float) -> AnyAction:
        if not self._devices:
            return Reset(at, self._host())
        return Unplugged(at, *self._luck.choice(self._devices), self._while())

    def clock(self, at: float) -> ClockSet:
        who = self._luck.choice(("m", *self._agents))
        return ClockSet(at, who, self._luck.choice((-EPOCH, -86_400.0, -30.0, 30.0, 3600.0, 1e7)))

    def master_disk(self, at: float) -> AnyAction:
        if self._luck.random() < 0.5:
            return MasterDiskSlow(at, self._luck.choice((0.1, 1.0, 10.0)), self._while())
        return MasterDiskFull(at, self._while())

    def operator(self, at: float) -> AnyAction:
        if self._luck.random() < 0.3:
            return OperatorKills(at, *self.key())
        kinds = ("cluster", "agents", "frameworks", "tasks", "explain", "story")
        return OperatorAsks(at, self._luck.choice(kinds), self._luck.randint(1, 20))

    def choice(self, *options: str) -> str:
        return self._luck.choice(options)

    def host(self) -> str:
        """Return an agent's or a framework's host."""
        return self._host()

    def some_time(self) -> float:
        """See `_while`."""
        return self._while()


_DISTURBANCES: Final[dict[Kind, Callable[[_Draw, float], AnyAction]]] = {
    "cut": _Draw.cut,
    "slow": lambda d, at: Slow(at, d.host(), 5.0, d.some_time()),
    "reset": lambda d, at: Reset(at, d.host()),
    "nat": lambda d, at: NatForgets(at, d.host()),
    "kill-agent": lambda d, at: AgentKilled(at, d.agent(), d.some_time()),
    "power": lambda d, at: PowerLost(at, d.agent(), d.some_time()),
    "reboot": lambda d, at: Rebooted(at, d.agent(), d.some_time()),
    "agent-disk": lambda d, at: AgentDiskFull(at, d.agent(), d.some_time()),
    "sick": lambda d, at: ExecutorSick(at, d.agent(), d.choice("process", "wasm"), d.some_time()),
    "unplug": _Draw.unplug,
    "clock": _Draw.clock,
    "kill-master": lambda d, at: MasterKilled(
        at,
        d.choice("now", "power", "before-commit", "after-commit", "half-sent"),  # type: ignore[arg-type]
        d.some_time(),
    ),
    "stop-master": lambda d, at: MasterStopped(at, d.some_time()),
    "master-disk": _Draw.master_disk,
    "drain": lambda d, at: Drained(at, d.agent(), d.some_time()),
    "forget": lambda d, at: Forgotten(at, d.agent()),
    "operator": _Draw.operator,
    "take-over": lambda d, at: TakeOver(at, d.framework()),
    "framework-dies": lambda d, at: FrameworkDies(at, d.framework(), d.some_time()),
    "misbehave": lambda d, at: Misbehave(
        at, d.framework(), d.choice("garbage", "foreign-offers", "foreign-kills", "flood", "wrong-role")
    ),
    "again": lambda d, at: SubmitAgain(at, *d.key()),
    "kill-tasks": lambda d, at: KillKey(at, *d.key()),
    "leave": lambda d, at: Leave(at, d.framework()),
    "suppress": lambda d, at: Suppressed(at, d.framework(), d.some_time()),
}


# --- gateways ---------------------------------------------------------------------------------


class _DrawGateways:
    """Puts gateways into a plan, from a stream of its own: the rest of the plan stays as it was."""

    def __init__(self, plan: Plan, swarm: Swarm) -> None:
        self._plan = plan
        self._swarm = swarm
        self._luck = luck = random.Random(f"{plan.seed}/gateways")
        fewest, most = swarm.gateways
        count = luck.randint(max(1, fewest), 2)
        if not fewest and luck.random() < 0.5:
            count = 0
        self._gateways = [f"g{n + 1}" for n in range(min(count, most))]
        #: Names of devices, with whom they dial.
        self._devices: dict[str, tuple[str, ...]] = {}

    def plan(self) -> Plan:
        if not self._gateways:
            return self._plan
        luck = self._luck
        actions: list[AnyAction] = [SwitchOn(0.0, self._gateway(name)) for name in self._gateways]
        actions += [self._as_device(action) for action in self._plan.actions]
        for kind in GATEWAY_KINDS:
            enabled = luck.random() < 0.4
            pace_s = luck.uniform(*self._swarm.pace_s)
            if kind in self._swarm.gateway_kinds and (enabled or self._swarm.all_kinds):
                at = luck.expovariate(1 / pace_s)
                while at < self._plan.faults_s:
                    actions.append(_GATEWAY_DISTURBANCES[kind](self, round(at, 3)))
                    at += luck.expovariate(1 / pace_s)
        return msgspec.structs.replace(
            self._plan,
            custody_bytes=luck.choice((0, SMALL_CUSTODY_BYTES)),
            actions=tuple(sorted(actions, key=lambda action: action.at)),
        )

    def _gateway(self, name: str) -> AgentPlan:
        luck = self._luck
        delay_s, jitter_s = luck.choice(((0.001, 0.001), (0.01, 0.02), (0.1, 0.3), (1.0, 2.0)))
        return AgentPlan(
            name,
            luck.choice(("cpus:0.1;mem:10", "cpus:4;mem:1024;ports:[31000-31009]")),
            (),
            {"zone": luck.choice(("north", "south"))},
            LinkQuality(delay_s, jitter_s, keepalive_s=luck.choice((20.0, 60.0, None))),
            compact_at=luck.choice((10, 50, 1000)),
            gateway=True,
        )

    def _as_device(self, action: AnyAction) -> AnyAction:
        """Let some of the agents join through gateways, most of them over a constrained link."""
        luck = self._luck
        if not isinstance(action, SwitchOn) or (self._devices and luck.random() < 0.3):
            return action
        via = list(self._gateways)
        if luck.random() < 0.3:
            via.append("m")
        luck.shuffle(via)
        machine = msgspec.structs.replace(action.machine, via=tuple(via))
        self._devices[machine.name] = machine.via
        if luck.random() < 0.7:
            delay_s, jitter_s = luck.choice(((0.05, 0.1), (0.5, 1.0), (1.0, 3.0)))
            loss = luck.choice((0.0, 0.05, 0.2, 0.4))
            push, keepalive_s = (False, None) if luck.random() < 0.7 else (True, 20.0)
            link = LinkQuality(delay_s, jitter_s, push, keepalive_s, 2048, loss)
            machine = msgspec.structs.replace(machine, link=link)
        if luck.random() < 0.3:
            attributes = {**machine.attributes, "link.class": "constrained"}
            machine = msgspec.structs.replace(machine, attributes=attributes)
        return SwitchOn(action.at, machine)

    # --- what happens to them -----------------------------------------------------------------

    def gateway(self) -> str:
        """Return one of the gateways."""
        return self._luck.choice(self._gateways)

    def device(self) -> str:
        """Return one of the devices."""
        return self._luck.choice(list(self._devices))

    def some_time(self) -> float:
        """Return how long something lasts: from a moment to longer than any lease."""
        return round(self._luck.choice((1.0, 10.0, 60.0, 200.0, 600.0)) * self._luck.uniform(0.3, 1.7), 3)

    def ways(self) -> tuple[int, ...]:
        """Return which directions are cut."""
        return self._luck.choice(((UP, DOWN), (UP, DOWN), (UP,), (DOWN,)))

    def by_s(self) -> float:
        """Return by how much a clock jumps."""
        return self._luck.choice((-86_400.0, -30.0, 30.0, 3600.0))

    def move(self, at: float) -> Moved:
        """Return where a device goes."""
        device = self.device()
        return Moved(at, device, self._luck.choice(self._devices[device]), self.some_time())

    def restart(self, at: float) -> AnyAction:
        """Return how a device is restarted."""
        kind = self._luck.choice((AgentKilled, PowerLost))
        return kind(at, self.device(), self._luck.choice((0.5, 5.0, 60.0)))


SMALL_CUSTODY_BYTES: Final = 400
"""Room for two or three status updates."""

_GATEWAY_DISTURBANCES: Final[dict[GatewayKind, Callable[[_DrawGateways, float], AnyAction]]] = {
    "uplink-cut": lambda d, at: Cut(at, d.gateway(), d.ways(), d.some_time()),
    "uplink-reset": lambda d, at: Reset(at, d.gateway()),
    "kill-gateway": lambda d, at: AgentKilled(at, d.gateway(), d.some_time()),
    "gateway-power": lambda d, at: PowerLost(at, d.gateway(), d.some_time()),
    "gateway-reboot": lambda d, at: Rebooted(at, d.gateway(), d.some_time()),
    "gateway-disk": lambda d, at: AgentDiskFull(at, d.gateway(), d.some_time()),
    "gateway-clock": lambda d, at: ClockSet(at, d.gateway(), d.by_s()),
    "gateway-forgotten": lambda d, at: Forgotten(at, d.gateway()),
    "move": _DrawGateways.move,
    "sleep": lambda d, at: Cut(at, d.device(), (UP, DOWN), d.some_time()),
    "radio-reset": lambda d, at: Reset(at, d.device()),
    "device-restart": _DrawGateways.restart,
}
