"""Makes the nodes and lets a plan happen to them: first with faults, then calm, until all is settled."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Final

import msgspec

from edgerm_core.config import GatewayConfig
from edgerm_core.ids import TaskId
from edgerm_core.interfaces import Scheduler
from edgerm_core.limits import CUSTODY_BYTES
from edgerm_core.master.settings import Settings
from edgerm_core.testing.simulator import plan as plans
from edgerm_core.testing.simulator.agent_node import AgentNode, AgentPlan
from edgerm_core.testing.simulator.checks import Checks
from edgerm_core.testing.simulator.client_node import ClientNode
from edgerm_core.testing.simulator.disks import COMMIT_S
from edgerm_core.testing.simulator.framework_node import FrameworkNode
from edgerm_core.testing.simulator.gateway_node import GatewayNode
from edgerm_core.testing.simulator.master_node import MasterNode
from edgerm_core.testing.simulator.network import Link, LinkQuality, Nobody, Server
from edgerm_core.testing.simulator.operator_node import OperatorNode
from edgerm_core.testing.simulator.plan import Plan
from edgerm_core.testing.simulator.schedulers import FaultyScheduler, scheduler_factory
from edgerm_core.testing.simulator.settled import check_settled, unsettled
from edgerm_core.testing.simulator.story import Story
from edgerm_core.testing.simulator.world import Failure, World

SETTLE_S: Final = 4 * 3600.0
"""After the last fault has healed, everything must be settled within this long, in virtual time. The
longest way there is a task that hangs each time it is started (600 s) and is tried again until its policy
is used up."""

LOOK_EVERY_S: Final = 7.3
"""How often it is looked whether all is settled; no multiple of anything that beats."""

RESTLESS_S: Final = 120.0
"""What is restarted within this long is restarted all the time: no policy here waits for more than 20 s."""

NOBODY: Final = Nobody()

MASTER_PATIENCE_S: Final = 5.0
"""After a master died of something that no action ordered, its supervisor starts it again."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of a plan.

    Attributes:
        failure: what did not hold; empty: all did.
        digest: of the whole story.
        virtual_s: virtual time lived through.
        settled_s: of it, from the last fault until all was settled.
        events: how many things happened.
        counts: how often what was seen.
        lines: the story, if it was kept.
    """

    failure: str
    digest: str
    virtual_s: float
    settled_s: float
    events: int
    counts: dict[str, int]
    lines: tuple[str, ...] = ()


def run_plan(plan: Plan, *, keep_story: bool = False) -> Outcome:
    """Let a plan happen and return what became of it."""
    story = Story(keep=keep_story)
    cluster = Cluster(plan, story)
    failure = ""
    log = logging.getLogger("edgerm_core")
    level = log.level
    log.setLevel(logging.CRITICAL)  # What the machines say is not news: they are made to suffer.
    try:
        cluster.run()
    except Failure as error:
        failure = str(error)
    except Exception as error:
        # A bug, in a machine or in the simulator: either way the seed must not pass.
        where = "".join(traceback.format_tb(error.__traceback__, -4))
        failure = f"{type(error).__name__}: {error}\n{where}"
    finally:
        log.setLevel(level)
    world = cluster.world
    return Outcome(
        failure,
        story.digest(),
        world.now,
        max(0.0, world.now - plan.faults_s),
        world.events,
        cluster.checks.counts,
        tuple(story.lines),
    )


class Cluster:
    """All nodes, and what happens to them."""

    def __init__(self, plan: Plan, story: Story) -> None:
        self.plan = plan
        self.world = World(plan.seed, story)
        self.checks = Checks(self.world)
        self.calm = False
        self._heal: dict[int, Callable[[], None]] = {}
        #: How often each task had been restarted, and since when that is known.
        self._restarts: dict[TaskId, tuple[int, float]] = {}
        self._restless: set[TaskId] = set()
        self._faults = 0
        settings = Settings(
            heartbeat_s=plan.heartbeat_s,
            recovery_grace_s=plan.recovery_grace_s,
            offer_timeout_s=plan.offer_timeout_s,
        )
        self._gateway_config = GatewayConfig(heartbeat_s=plan.heartbeat_s)
        self._make_sound = scheduler_factory(plan.scheduler)
        self._scheduler_luck = self.world.luck("scheduler")
        self.master = MasterNode(self.world, settings, self._make_scheduler, self.checks)
        self.master.on_death = lambda: self._later(MASTER_PATIENCE_S, self.master.start)
        self.checks.master = self.master
        self.agents: dict[str, AgentNode] = self.checks.agents
        self.frameworks: dict[str, FrameworkNode] = {}
        self.operator = OperatorNode(
            self.world, Link(self.world, "op", LinkQuality(), self.master), self.checks
        )

    def _make_scheduler(self) -> Scheduler:
        sound = self._make_sound()
        if self.plan.scheduler_fault and not self.calm:
            return FaultyScheduler(sound, self.plan.scheduler_fault, self._scheduler_luck)
        return sound

    # --- the two phases -----------------------------------------------------------------------

    def run(self) -> None:
        """Let it all happen.

        Raises:
            Failure: if something that must hold does not.
        """
        self.master.start()
        self.operator.dial()
        for action in self.plan.actions:
            self.world.at(action.at, lambda action=action: self._act(action))  # type: ignore[misc]
        self.world.run_until(self.plan.faults_s)
        self.be_calm()
        end = self.plan.faults_s + SETTLE_S
        while reasons := unsettled(self):
            if self.world.now >= end:
                listed = "\n  ".join(reasons[:20])
                raise Failure(f"not settled {SETTLE_S:.0f} s after the last fault:\n  {listed}")
            if self.world.now >= end - SETTLE_S / 2:
                self._end_the_restless()
            self.world.run_until(min(end, self.world.now + LOOK_EVERY_S))
        check_settled(self)

    def _end_the_restless(self) -> None:
        """Let the operator kill what is restarted all the time.

        Where several tasks are, behind slow links, there is never a moment in which nothing is on its way.
        What stands still is left alone: it would be what is looked for.
        """
        machine, now = self.master.machine, self.world.now
        for task in machine.state.tasks.values() if machine is not None else ():
            if task.state.terminal or task.id in self._restless:
                continue
            restarts, since = self._restarts.get(task.id, (task.restarts, now))
            if task.restarts != restarts and now - since <= RESTLESS_S:
                self._restless.add(task.id)
                self.operator.kill(task.id)
            elif task.restarts != restarts or now - since > RESTLESS_S:
                since = now
            self._restarts[task.id] = (task.restarts, since)

    def be_calm(self) -> None:
        """Heal everything, and let everybody who can be there be there."""
        self.world.tell("", "--- from here on nothing fails any more ---")
        self.calm = True
        for number in sorted(self._heal):
            self._heal[number]()
        self._heal.clear()
        for agent in self.agents.values():
            agent.link.loss = 0.0
            agent.power_on()
            agent.start()
        if self.plan.scheduler_fault:
            self.master.crash()
        self.master.start()
        for framework in self.frameworks.values():
            framework.be_calm()
            if not framework.connected:
                framework.dial()

    # --- what happens -------------------------------------------------------------------------

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        self.world.after(delay_s, call)

    def _for(self, seconds: float, heal: Callable[[], None]) -> None:
        """Heal after so many seconds, or when all becomes calm."""
        self._faults += 1
        number = self._faults
        self._heal[number] = heal

        def over() -> None:
            if self._heal.pop(number, None) is not None:
                heal()

        self._later(seconds, over)

    def _links(self, who: str) -> list[Link]:
        if who == "*":
            every: list[AgentNode | ClientNode] = [*self.agents.values(), *self.frameworks.values()]
            return [node.link for node in (*every, self.operator)]
        node = self.agents.get(who) or self.frameworks.get(who)
        return [node.link] if node is not None else []

    def _act(self, action: plans.AnyAction) -> None:
        if self.world.telling:
            self.world.tell("", f"*** {describe(action)}")
        framework = self.frameworks.get(getattr(action, "framework", ""))
        agent = self.agents.get(getattr(action, "agent", ""))
        match action:
            case plans.SwitchOn(machine=new):
                self._switch_on(new)
            case plans.Join(application=new_framework):
                name = new_framework.name
                link = Link(self.world, name, new_framework.link, self.master)
                self.frameworks[name] = FrameworkNode(self.world, new_framework, link, self.checks)
                self.frameworks[name].dial()
            case plans.Upload(number=number):
                self.master.store_blob(bytes([number]) * 32, 1000)
            case plans.OperatorAsks(kind=kind, task_id=task_id):
                self.operator.query(kind, task_id)
            case plans.Cut() | plans.Slow() | plans.Reset() | plans.NatForgets():
                for each in self._links(action.who):
                    self._disturb_link(action, each)
            case plans.ClockSet(who=who, by_s=by_s):
                if who == "m":
                    self.master.wall_offset_s = by_s
                elif who in self.agents:
                    self.agents[who].host.wall_offset_s = by_s
            case plans.MasterKilled(point=point, away_s=away_s):
                was_up = self.master.machine is not None
                self.master.on_death = lambda: self._for(away_s, self.master.start)
                self.master.crash(point)
                if was_up and self.master.machine is None:
                    self._for(away_s, self.master.start)
            case plans.MasterStopped(away_s=away_s):
                self.master.stop()
                self._for(away_s, self.master.start)
            case plans.MasterDiskFull(for_s=for_s):
                self.master.disk.refuses = True
                self._for(for_s, lambda: setattr(self.master.disk, "refuses", False))
            case plans.MasterDiskSlow(commit_s=commit_s, for_s=for_s):
                self.master.disk.commit_s = commit_s
                self._for(for_s, lambda: setattr(self.master.disk, "commit_s", COMMIT_S))
            case _ if framework is not None:
                self._act_on_framework(action, framework)
            case _ if agent is not None:
                self._act_on_agent(action, agent)
            case _:
                pass  # Shrinking has taken out whom it is about.

    def _switch_on(self, new: AgentPlan) -> None:
        link = Link(self.world, new.name, new.link, self.master)
        if new.gateway:
            custody_bytes = self.plan.custody_bytes or CUSTODY_BYTES
            config = self._gateway_config
            gateway = GatewayNode(self.world, new, link, self.checks, config, custody_bytes)
            self.agents[new.name] = self.checks.gateways[new.name] = gateway
        else:
            self.agents[new.name] = AgentNode(self.world, new, link, self.checks)
        node = self.agents[new.name]
        if new.via:
            node.servers = self._server
        node.start()

    def _server(self, name: str) -> Server:
        """Return who listens at an address that a device knows."""
        if name == self.master.name:
            return self.master
        return self.checks.gateways.get(name) or NOBODY

    def _disturb_link(
        self, action: plans.Cut | plans.Slow | plans.Reset | plans.NatForgets, link: Link
    ) -> None:
        match action:
            case plans.Cut(ways=ways, for_s=for_s):
                link.cut(ways)
                self._for(for_s, lambda: link.heal(ways))
            case plans.Slow(by_s=by_s, for_s=for_s):
                link.slow(by_s)
                self._for(for_s, lambda: link.slow(-by_s))
            case plans.Reset():
                for connection in list(link.connections):
                    connection.reset()
            case plans.NatForgets():
                for connection in list(link.connections):
                    connection.forget_binding()

    def _act_on_framework(self, action: plans.AnyAction, framework: FrameworkNode) -> None:
        match action:
            case plans.SubmitTasks(key=key, spec=spec):
                framework.submit(key, spec)
            case plans.SubmitAgain(key=key):
                framework.submit_again(key)
            case plans.KillKey(key=key):
                framework.kill(key)
            case plans.OperatorKills(key=key):
                submission = framework.submissions.get(key)
                if submission is not None and submission.ids:
                    self.operator.kill(submission.ids[0])
            case plans.TakeOver():
                framework.take_over()
            case plans.FrameworkDies(away_s=away_s):
                framework.die()
                if framework.plan.failover_timeout_s is not None:
                    self.checks.framework_leaves(framework.name)
                self._for(away_s, framework.dial)
            case plans.Leave():
                framework.leave()
            case plans.Suppressed(for_s=for_s):
                framework.suppress()
                self._for(for_s, framework.revive)
            case plans.Misbehave(how=how):
                framework.misbehave(how)

    def _act_on_agent(self, action: plans.AnyAction, agent: AgentNode) -> None:
        match action:
            case plans.Drained(agent=name, for_s=for_s):
                self.operator.drain(name)
                self._for(for_s, lambda: self.operator.drain(name, undo=True))
            case plans.Forgotten(agent=name):
                self.operator.forget(name)
            case plans.Moved(to=to, for_s=for_s):
                agent.link.move(self._server(to))
                self._for(for_s, lambda: agent.link.move(None))
            case plans.AgentKilled(away_s=away_s):
                agent.kill()
                self._for(away_s, agent.start)
            case plans.PowerLost(away_s=away_s) | plans.Rebooted(away_s=away_s):
                agent.power_off(cleanly=isinstance(action, plans.Rebooted))

                def boot() -> None:
                    agent.power_on()
                    agent.start()

                self._for(away_s, boot)
            case plans.AgentDiskFull(for_s=for_s):
                agent.fill_disk(True)
                self._for(for_s, lambda: agent.fill_disk(False))
            case plans.ExecutorSick(executor=executor, for_s=for_s):
                agent.host.sick.add(executor)
                self._for(for_s, lambda: agent.host.sick.discard(executor))
            case plans.Unplugged(device=device, for_s=for_s):
                agent.host.unplugged.add(device)
                agent.devices_changed()

                def plug_in() -> None:
                    agent.host.unplugged.discard(device)
                    agent.devices_changed()

                self._for(for_s, plug_in)


def describe(action: plans.AnyAction) -> str:
    """Return an action in one line, without what it leaves at its default."""
    parts = msgspec.to_builtins(action)
    parts.pop("at", None)
    parts.pop("type", None)
    return f"{type(action).__name__} " + " ".join(f"{name}={value}" for name, value in parts.items())
