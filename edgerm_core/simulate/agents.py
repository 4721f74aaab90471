"""Agents whose runs do what the workload file says, and whose machines note how busy they were."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from edgerm_core.agents import Fingerprint
from edgerm_core.ids import TaskId
from edgerm_core.messages import Launch
from edgerm_core.resources import Device, Resources
from edgerm_core.simulate.links import MeteredLink
from edgerm_core.simulate.scenario import Arrival, Group, Spread
from edgerm_core.tasks import ExitResult
from edgerm_core.testing.simulator.agent_node import AgentNode, AgentPlan
from edgerm_core.testing.simulator.checks import Checks
from edgerm_core.testing.simulator.disks import AgentDisk
from edgerm_core.testing.simulator.executors import Behaviour, Host, RealRun
from edgerm_core.testing.simulator.world import World

ENDS_WITH_AGENT: Final = frozenset({"wasm"})
"""Executors whose runs end with the agent process. All others are taken to have a keeper."""

SYNC_S: Final = 1.0
"""From a record to its sync, as `limits.JOURNAL_SYNC_S`, without a timer while nothing is written."""


class Workload:
    """What runs do, by the key of the submission that their tasks came from.

    Parameters:
        arrivals: by key.
        task: returns a task's key and index.
    """

    def __init__(
        self, world: World, arrivals: Mapping[str, Arrival], task: Callable[[TaskId], tuple[str, int]]
    ) -> None:
        self.world = world
        self.arrivals = arrivals
        self.task = task

    def behaviour(self, key: tuple[int, int, int]) -> Behaviour:
        """Return what a run does. The work of a task is the same in each of its runs; luck is not.

        Luck depends on the submission and not on where and when a task runs, so that two schedulers can
        be compared on the same work.
        """
        task_id, attempt, restarts = key
        name, index = self.task(TaskId(task_id))
        spec = self.arrivals[name].run
        duration_s = spec.duration_s
        if isinstance(duration_s, Spread):
            duration_s = duration_s.draw(self.world.luck(f"work/{name}/{index}"))
        fails = self.world.luck(f"run/{name}/{index}/{attempt}/{restarts}").random() < spec.failure
        return Behaviour(start_s=spec.start_s, run_s=duration_s, end="badly" if fails else "well")

    def result(self, key: tuple[int, int, int]) -> bytes | None:
        """Return the result of a run that ends well."""
        size = self.arrivals[self.task(TaskId(key[0]))[0]].run.result_bytes
        return bytes(size) if size else None


class BusyHost(Host):
    """A machine that notes when its runs began and ended.

    Attributes:
        ended_at: by run: task id, attempt, restarts.
        busy: resource seconds of runs that have ended, in 1/1000 units, by resource.
    """

    def __init__(
        self, world: World, name: str, workload: Workload, fetch_s: Callable[[Launch], float]
    ) -> None:
        super().__init__(world, name, lambda host, run: None)
        self.workload = workload
        self.ended_at: dict[tuple[int, int, int], float] = {}
        self.busy: dict[str, float] = {}
        self._fetch_s = fetch_s
        self._looked: dict[str, float] = {}
        self._looked_at = 0.0

    def behaviour(self, key: tuple[int, int, int], launch: Launch) -> Behaviour:
        """See `Host.behaviour`."""
        return msgspec.structs.replace(self.workload.behaviour(key), fetch_s=self._fetch_s(launch))

    def survives(self, executor: str) -> bool:
        """See `Host.survives`."""
        return executor not in ENDS_WITH_AGENT

    def busy_until(self, now: float) -> dict[str, float]:
        """Return `busy` with what runs now."""
        busy = dict(self.busy)
        for run in self.live():
            _add(busy, run, now - run.started_at)
        return busy

    def busy_part(self, totals: Resources) -> float:
        """Return how much was held since the last call of the resource that most was held of."""
        now, busy = self.world.now, self.busy_until(self.world.now)
        seconds = max(now - self._looked_at, 1e-9)
        of = totals.quantities()
        parts = [
            (amount - self._looked.get(name, 0.0)) / (of[name] * seconds)
            for name, amount in busy.items()
            if name in of
        ]
        self._looked, self._looked_at = busy, now
        return max(parts, default=0.0)

    def _end(self, run: RealRun, result: ExitResult, *, quietly: bool = False) -> None:
        if run.result is None:
            self.ended_at[run.key] = self.world.now
            _add(self.busy, run, self.world.now - run.started_at)
            if result.ok:
                result = msgspec.structs.replace(result, result=self.workload.result(run.key))
        super()._end(run, result, quietly=quietly)


def _add(busy: dict[str, float], run: RealRun, seconds: float) -> None:
    for name, milli in run.launch.resources.quantities().items():
        busy[name] = busy.get(name, 0.0) + milli * seconds


class _Disk(AgentDisk):
    """A journal that says when something is to be synced."""

    def __init__(self, on_dirty: Callable[[], None]) -> None:
        super().__init__()
        self._on_dirty = on_dirty

    def append(self, payloads: object) -> None:
        super().append(payloads)  # type: ignore[arg-type]
        if self.dirty:
            self._on_dirty()


class SimulatedAgent(AgentNode):
    """An agent of a group.

    Parameters:
        blobs: sizes of blobs.
    """

    def __init__(
        self,
        world: World,
        name: str,
        group: Group,
        link: MeteredLink,
        checks: Checks,
        workload: Workload,
        blobs: Mapping[bytes, int],
    ) -> None:
        devices: tuple[Device, ...] = tuple(device.device() for device in group.devices)
        attributes = {"group": group.name, **group.attributes}
        plan = AgentPlan(name, group.resources, devices, attributes)
        super().__init__(world, plan, link, checks)
        self.group = group
        self.metered = link
        self.blobs = blobs
        self.busy_host = BusyHost(world, name, workload, self._fetch_s)
        self.host = self.busy_host
        self.disk = _Disk(self._sync_soon)
        self._sync_due = False
        #: How many reasons there are for the machine to be off.
        self._off = 0
        self._totals = super().totals

    @property
    def totals(self) -> Resources:
        """See `AgentNode.totals`."""
        return self._totals

    def switch_off(self) -> None:
        """The machine loses its power until as many `switch_on`s have come."""
        self._off += 1
        self.power_off(cleanly=False)

    def switch_on(self) -> None:
        """Undo one `switch_off`."""
        self._off -= 1
        if not self._off:
            self.power_on()
            self.start()

    def _fetch_s(self, launch: Launch) -> float:
        blob = launch.implementation.blob
        if blob is None or blob in self.cache:
            return 0.0
        return self.metered.fetch_s(self.blobs.get(blob, 0))

    def _ask_executors(self) -> tuple[Fingerprint, ...]:
        return tuple(
            Fingerprint(name, "1", True, "", {"survives_agent_restart": self.host.survives(name)})
            for name in self.group.executors
        )

    def _every(self, seconds: float, call: object) -> None:
        """Nothing is done at fixed times: `_Disk` says when to sync, and executors do not fall ill."""

    def _sync_soon(self) -> None:
        if self._sync_due:
            return
        self._sync_due = True

        def sync() -> None:
            self._sync_due = False
            if self.agent is not None:
                self._keep_journal()

        self.world.after(SYNC_S, sync)
