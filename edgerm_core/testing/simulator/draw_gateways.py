"""How gateways and devices behind them are drawn into a plan."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import msgspec

from edgerm_core.testing.simulator.agent_node import AgentPlan
from edgerm_core.testing.simulator.network import DOWN, UP, LinkQuality
from edgerm_core.testing.simulator.plan import (
    AgentDiskFull,
    AgentKilled,
    AnyAction,
    ClockSet,
    Cut,
    Forgotten,
    Moved,
    Plan,
    PowerLost,
    Rebooted,
    Reset,
    SwitchOn,
)
from edgerm_core.testing.simulator.swarm import GATEWAY_KINDS, GatewayKind, Swarm


def add_gateways(plan: Plan, swarm: Swarm) -> Plan:
    """Return the plan with gateways, and with some of its agents behind them."""
    return _DrawGateways(plan, swarm).plan()


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
