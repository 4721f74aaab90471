"""How a plan is drawn from its seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from edgerm_core.attributes import Constraint, parse_constraint
from edgerm_core.ids import BlobId
from edgerm_core.resources import Device, DeviceRequest, ResourceRequest
from edgerm_core.tasks import DisconnectPolicy, Implementation, ReschedulePolicy, RestartPolicy, TaskSpec
from edgerm_core.testing.simulator.agent_node import AgentPlan
from edgerm_core.testing.simulator.draw_gateways import add_gateways
from edgerm_core.testing.simulator.executors import Behaviour
from edgerm_core.testing.simulator.framework_node import FrameworkPlan
from edgerm_core.testing.simulator.network import DOWN, UP, LinkQuality
from edgerm_core.testing.simulator.plan import (
    AgentDiskFull,
    AgentKilled,
    AnyAction,
    ClockSet,
    Cut,
    Drained,
    ExecutorSick,
    Forgotten,
    FrameworkDies,
    Join,
    KillKey,
    Leave,
    MasterDiskFull,
    MasterDiskSlow,
    MasterKilled,
    MasterStopped,
    Misbehave,
    NatForgets,
    OperatorAsks,
    OperatorKills,
    Plan,
    PowerLost,
    Rebooted,
    Reset,
    Slow,
    SubmitAgain,
    SubmitTasks,
    Suppressed,
    SwitchOn,
    TakeOver,
    Unplugged,
    Upload,
)
from edgerm_core.testing.simulator.schedulers import FAULTS as SCHEDULER_FAULTS
from edgerm_core.testing.simulator.swarm import EVERYTHING, KINDS, Kind, Swarm
from edgerm_core.testing.simulator.world import EPOCH

BLOBS: Final = 3
"""Different blobs in one plan."""


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
        return add_gateways(plan, self._swarm)

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
