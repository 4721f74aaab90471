"""A scenario's cluster, put together out of the simulator's nodes, run in virtual time and looked at.

Nothing fails here but what the scenario says: the checks that the simulator makes after every event are
left out, which is what makes a day of forty agents a matter of seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from edgerm_core.config import Config, PluginsConfig
from edgerm_core.errors import EdgermError
from edgerm_core.ids import TaskId
from edgerm_core.interfaces import Scheduler
from edgerm_core.master.events import BatchEnded
from edgerm_core.master.runner import choose_scheduler
from edgerm_core.master.settings import Settings
from edgerm_core.master.state import MasterState
from edgerm_core.messages import TaskUpdate
from edgerm_core.plugins import load_plugins
from edgerm_core.simulate.agents import SimulatedAgent, Workload
from edgerm_core.simulate.links import MeteredLink
from edgerm_core.simulate.meters import FrameworkSample, ShareMeter
from edgerm_core.simulate.scenario import Arrival, Outage, Scenario
from edgerm_core.testing.simulator.agent_node import AgentNode
from edgerm_core.testing.simulator.checks import Checks
from edgerm_core.testing.simulator.executors import Host, RealRun
from edgerm_core.testing.simulator.framework_node import FrameworkNode, FrameworkPlan
from edgerm_core.testing.simulator.master_node import MasterNode
from edgerm_core.testing.simulator.network import DOWN, UP, Link, LinkQuality
from edgerm_core.testing.simulator.story import Story
from edgerm_core.testing.simulator.world import Failure, World

SAMPLES: Final = 480
"""Stretches of time that are kept: when there are as many, each two become one."""

MAX_EVENTS: Final = 1_000_000_000
"""Of one experiment: hours of simulating."""

FIRST_SAMPLE_S: Final = 1.0

SWITCH_ON_S: Final = 5.0
"""All machines are switched on within this long."""

KEEP_TASKS: Final = 10_000_000
"""The books are read at the end: no ended task is forgotten before."""


class AgentSample(msgspec.Struct, frozen=True):
    """An agent over a stretch of time, on average.

    Attributes:
        busy: of its resources, the part of the one that its runs held most of.
        away: whether the master counted it as away at the end; between 0 and 1 for several stretches.
    """

    busy: float
    away: float


class Sample(msgspec.Struct, frozen=True):
    """A stretch of time that ends at `at_s`; frameworks and agents in the order of the files."""

    at_s: float
    frameworks: tuple[FrameworkSample, ...]
    agents: tuple[AgentSample, ...]

    def with_next(self, after: Sample) -> Sample:
        """Return this stretch and the next one, as long as this, as one."""
        frameworks = tuple(
            FrameworkSample((a.share + b.share) / 2, (a.placed + b.placed) / 2, (a.waiting + b.waiting) / 2)
            for a, b in zip(self.frameworks, after.frameworks, strict=True)
        )
        agents = tuple(
            AgentSample((a.busy + b.busy) / 2, (a.away + b.away) / 2)
            for a, b in zip(self.agents, after.agents, strict=True)
        )
        return Sample(after.at_s, frameworks, agents)


class Experiment:
    """A scenario's cluster.

    Attributes:
        samples: stretches of equal length that cover the time; the last may be shorter.
        ended_s: virtual time at which it ended.
        scheduler: the name of the scheduler.
        arrivals: the submissions, by key.
        agents, frameworks: by name, in the order of the files.

    Parameters:
        plugins: which plugins are loaded, as in edgerm.toml.

    Raises:
        PluginError: if the scheduler is not there.
        ConfigError: if its section is wrong.
    """

    def __init__(self, scenario: Scenario, plugins: PluginsConfig | None = None) -> None:
        cluster = scenario.cluster
        self.scenario = scenario
        self.world = World(cluster.seed, Story(), max_events=MAX_EVENTS)
        config = Config(plugins or PluginsConfig(), cluster.master, scheduler=cluster.scheduler)
        loaded = load_plugins(config)
        self.scheduler = choose_scheduler(config, loaded)
        made: Scheduler = loaded.create("scheduler", self.scheduler)
        settings = msgspec.structs.replace(Settings.of(cluster.master), retain_terminal_tasks=KEEP_TASKS)
        self.meter = ShareMeter([each.name for each in scenario.workload.framework])
        checks = _Watch(self.world, self.meter)
        self.master = MasterNode(self.world, settings, lambda: made, checks)
        blobs = {blob.id: blob for arrival in scenario.arrivals for blob in arrival.draft.blobs}
        for blob in blobs.values():
            self.master.store_blob(blob.id, blob.size)
        sizes = {bytes(blob.id): blob.size for blob in blobs.values()}
        self.arrivals = {arrival.key: arrival for arrival in scenario.arrivals}
        workload = Workload(self.world, self.arrivals, self._task)
        self.agents = {
            name: SimulatedAgent(
                self.world,
                name,
                group,
                MeteredLink(self.world, name, group.link, self.master),
                checks,
                workload,
                sizes,
            )
            for group in cluster.agents
            for name in group.agents()
        }
        self.frameworks = {
            each.name: FrameworkNode(
                self.world,
                FrameworkPlan(each.name, round(each.weight * 1000), each.role),
                Link(self.world, each.name, LinkQuality(), self.master),
                checks,
            )
            for each in scenario.workload.framework
        }
        self.samples: list[Sample] = []
        self.ended_s = 0.0
        self._sample_s = FIRST_SAMPLE_S
        self._to_come = len(scenario.arrivals)

    @property
    def state(self) -> MasterState:
        """The master's books."""
        assert self.master.machine is not None
        return self.master.machine.state

    def _task(self, task_id: TaskId) -> tuple[str, int]:
        task = self.state.tasks[task_id]
        return task.key, task.index

    # --- running ------------------------------------------------------------------------------

    def run(self) -> None:
        """Let it happen, until all is done or the workload's time is over. To be called once.

        Raises:
            EdgermError: if it is too much to simulate, or a bug in edgerm shows.
        """
        log = logging.getLogger("edgerm_core")
        level = log.level
        log.setLevel(logging.CRITICAL)  # What the simulated machines say is not news.
        try:
            self._run()
        except Failure as error:
            raise EdgermError(f"after {self.world.now:.0f} simulated seconds: {error}") from error
        finally:
            log.setLevel(level)

    def _run(self) -> None:
        self.master.start()
        for framework in self.frameworks.values():
            framework.dial()
        for agent in self.agents.values():
            self.world.at(self.world.luck(f"switch/{agent.name}").uniform(0, SWITCH_ON_S), agent.start)
            if agent.group.failures is not None:
                self._fail_again(agent)
        for outage in self.scenario.cluster.outage:
            for name in self.scenario.cluster.affected(outage):
                self._plan_outage(outage, self.agents[name])
        for arrival in self.scenario.arrivals:
            self.world.at(arrival.at_s, lambda arrival=arrival: self._arrive(arrival))  # type: ignore[misc]
        until_s = self.scenario.workload.until_s
        looks = 0
        while self.world.now < until_s and not self._all_done():
            looks += 1
            self.world.run_until(min(until_s, looks * self._sample_s))
            self.samples.append(self._look())
            if len(self.samples) == SAMPLES:
                pairs = zip(self.samples[::2], self.samples[1::2], strict=True)
                self.samples = [first.with_next(second) for first, second in pairs]
                looks //= 2
                self._sample_s *= 2
        self.ended_s = self.world.now

    def _arrive(self, arrival: Arrival) -> None:
        self._to_come -= 1
        self.frameworks[arrival.framework].submit(arrival.key, arrival.draft.spec)

    def _all_done(self) -> bool:
        if self._to_come or any(record.live for record in self.state.frameworks.values()):
            return False
        return all(
            submission.ids is not None or submission.failed
            for framework in self.frameworks.values()
            for submission in framework.submissions.values()
        )

    def _plan_outage(self, outage: Outage, agent: SimulatedAgent) -> None:
        begin: Callable[[], None] = agent.switch_off
        end: Callable[[], None] = agent.switch_on
        if outage.what == "link":

            def begin() -> None:
                agent.link.cut((UP, DOWN))

            def end() -> None:
                agent.link.heal((UP, DOWN))

        self.world.at(outage.from_s, begin)
        self.world.at(outage.from_s + outage.for_s, end)

    def _fail_again(self, agent: SimulatedAgent) -> None:
        failures = agent.group.failures
        assert failures is not None
        luck = self.world.luck(f"failures/{agent.name}/{agent.host.boots}")
        fails_s = luck.expovariate(1 / failures.mtbf_s)
        repaired_s = fails_s + luck.expovariate(1 / failures.repair_s)

        def back() -> None:
            agent.switch_on()
            self._fail_again(agent)

        self.world.after(fails_s, agent.switch_off)
        self.world.after(repaired_s, back)

    # --- looking ------------------------------------------------------------------------------

    def _look(self) -> Sample:
        now = self.world.now
        agents = []
        for name, agent in self.agents.items():
            known = self.state.agents.get(name)  # type: ignore[call-overload]
            away = known is None or not known.counted
            agents.append(AgentSample(agent.busy_host.busy_part(agent.totals), float(away)))
        return Sample(now, self.meter.take(now), tuple(agents))


class _Watch(Checks):
    """Checks nothing, which is what the simulator's own seeds are for, and lets the meter look."""

    def __init__(self, world: World, meter: ShareMeter) -> None:
        super().__init__(world)
        self.meter = meter

    def agent_handled(self, node: AgentNode, event: object) -> None:
        pass

    def agent_dies(self, node: AgentNode) -> None:
        pass

    def records_were_lost(self, node: AgentNode) -> None:
        node.host.fences.clear()

    def master_started(self, node: MasterNode) -> None:
        pass

    def master_handled(self, node: MasterNode, event: object) -> None:
        if isinstance(event, BatchEnded) and node.machine is not None:
            self.meter.look(self.world.now, node.machine.state)

    def master_committed(self, node: MasterNode) -> None:
        pass

    def run_begins(self, host: Host, run: RealRun) -> None:
        pass

    def end_told(self, framework: str, update: TaskUpdate) -> None:
        pass
