"""The master's records in memory: one class per noun, data only.

Ids are keys; amounts are exact; what can be derived cheaply is not kept. `#:` comments say what an
attribute holds and what it goes together with.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Final

from edgerm_core.agents import UNLIMITED_TASKS, AgentInfo, AgentState
from edgerm_core.attributes import Attributes
from edgerm_core.frameworks import FrameworkInfo, FrameworkState
from edgerm_core.ids import AgentId, FrameworkId, OfferId, SessionId, TaskId
from edgerm_core.limits import MAX_MESSAGE_BYTES
from edgerm_core.messages import TaskUsage
from edgerm_core.resources import EMPTY, UNIT, Device, Resources
from edgerm_core.tasks import StoryEntry, TaskSpec, TaskState

_versions = itertools.count(1)
"""One count for all agents: one that is forgotten and comes back must not show an old number."""


class Session:
    """One connection. Before its greeting, `role` is empty."""

    __slots__ = (
        "age_s",
        "agent_id",
        "framework_id",
        "id",
        "identity",
        "max_message_bytes",
        "peer",
        "push",
        "role",
        "via",
    )

    def __init__(self, session_id: SessionId, peer: str, identity: str | None, push: bool) -> None:
        self.id = session_id
        self.peer = peer
        self.identity = identity
        self.push = push
        self.max_message_bytes = MAX_MESSAGE_BYTES
        #: The gateway that relays it, or None.
        self.via: AgentId | None = None
        #: How long ago a relayed device had registered with its gateway when this session began.
        self.age_s = 0.0
        #: "", "agent", "framework", "operator", or "custody": a gateway hands in status updates of an
        #: agent that is not there any more.
        self.role = ""
        #: Set with the roles "agent" and "custody".
        self.agent_id: AgentId | None = None
        #: Set with role "framework".
        self.framework_id: FrameworkId | None = None


class Holding:
    """Resources of an agent that one attempt of a task holds."""

    __slots__ = ("attempt", "charge", "framework_id", "resources", "task_id")

    def __init__(
        self,
        task_id: TaskId,
        attempt: int,
        framework_id: FrameworkId,
        resources: Resources,
        charge: dict[str, int],
    ) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.framework_id = framework_id
        #: Concrete, as granted.
        self.resources = resources
        #: What fair sharing counts, see `fair_amounts`.
        self.charge = charge


NO_STRAYS: Final[frozenset[tuple[TaskId, int]]] = frozenset()
"""Python makes a new one of 216 bytes for each agent otherwise."""


class AgentRecord:
    """An agent and what it holds."""

    __slots__ = (
        "attributes",
        "boot_id",
        "devices",
        "drain",
        "executors",
        "fair_totals",
        "free",
        "ghosts",
        "heartbeat_s",
        "holdings",
        "incarnation",
        "info",
        "last_heard",
        "lease_deadline",
        "max_message_bytes",
        "offers",
        "old_incarnations",
        "overbooked",
        "peer",
        "registered_at",
        "session_id",
        "state",
        "static_version",
        "strays",
        "totals",
        "unconfirmed",
        "unreachable_since",
        "via",
    )

    def __init__(self, info: AgentInfo) -> None:
        self.info = info
        self.state = AgentState.RECOVERING
        self.boot_id = ""
        self.incarnation = ""
        #: Incarnations that a newer one replaced; one of them coming back proves a duplicate id.
        self.old_incarnations: tuple[str, ...] = ()
        #: Its live session, or None.
        self.session_id: SessionId | None = None
        self.peer = ""
        #: The gateway that relays that session, or relayed the last one; None: the agent has its own.
        self.via: AgentId | None = None
        #: When it last registered, here or with the gateway.
        self.registered_at = 0.0
        #: The largest message its connection takes.
        self.max_message_bytes = MAX_MESSAGE_BYTES
        #: The operator wants it empty. Survives unreachability, unlike the state DRAINING.
        self.drain = False
        self.heartbeat_s = 0.0
        self.last_heard = 0.0
        #: Renewed by every message; unreachable when it passes.
        self.lease_deadline = 0.0
        self.unreachable_since = 0.0
        #: Current attempts placed here, by task.
        self.holdings: dict[TaskId, Holding] = {}
        #: Attempts that were replaced while the agent was away, and may still run here. They keep
        #: their resources until the agent says that they have ended. By (task, attempt).
        self.ghosts: dict[tuple[TaskId, int], Holding] = {}
        #: Attempts that it said it runs and that hold nothing on the books: it was declared gone, and
        #: came back with them. Nothing is placed beside them until it says that they have ended.
        self.strays: frozenset[tuple[TaskId, int]] = NO_STRAYS
        self.offers: dict[OfferId, None] = {}  # An empty set has 150 bytes more than that.
        #: Tasks here whose launch or kill the agent has not confirmed yet.
        self.unconfirmed: dict[TaskId, None] = {}
        #: Another number whenever anything but `free` changes.
        self.static_version = 0
        self.totals = EMPTY
        self.free = EMPTY
        #: More is booked than the totals have (they shrank, or a device vanished).
        self.overbooked = False
        self.fair_totals: dict[str, int] = {}
        self.attributes: Attributes = {}
        self.devices: Mapping[str, Device] = {}
        self.executors: frozenset[str] = frozenset()
        self.describe(info)

    @property
    def id(self) -> AgentId:
        return self.info.id

    @property
    def tasks_left(self) -> int:
        """How many more tasks it takes."""
        limit = self.info.max_tasks or UNLIMITED_TASKS
        return max(0, limit - len(self.holdings) - len(self.ghosts))

    @property
    def counted(self) -> bool:
        """Whether its totals, and what is held of them, count in fair sharing.

        As in Mesos, an agent that is away takes its allocations out of the sums with it.
        """
        return self.state in (AgentState.READY, AgentState.DRAINING, AgentState.RECOVERING)

    @property
    def schedulable(self) -> bool:
        """Whether it may get tasks now."""
        return self.state is AgentState.READY and self.session_id is not None and not self.strays

    def books(self, task_id: TaskId, attempt: int) -> bool:
        """Return whether that attempt holds some of its resources."""
        holding = self.holdings.get(task_id)
        return (holding is not None and holding.attempt == attempt) or (task_id, attempt) in self.ghosts

    def describe(self, info: AgentInfo) -> None:
        """Take over what the agent says about itself; `free` must be recounted afterwards."""
        self.info = info
        self.static_version = next(_versions)
        self.devices = {device.id: device for device in info.devices}
        slots = {device.id: device.slots for device in info.devices}
        totals = info.totals
        self.totals = Resources(totals.scalars, totals.ranges, totals.sets, slots)
        self.attributes = info.attributes
        self.executors = _set_of(tuple(e.name for e in info.executors if e.healthy))
        self.fair_totals = fair_amounts(self.totals, self.devices)


@functools.lru_cache(1024)
def _set_of(names: tuple[str, ...]) -> frozenset[str]:
    """Return one set for all agents that have the same."""
    return frozenset(names)


class UsageRecord:
    """What an attempt uses."""

    __slots__ = ("at", "attempt", "cpus", "figures")

    def __init__(self, figures: TaskUsage, at: float, before: UsageRecord | None) -> None:
        self.figures = figures
        self.attempt = figures.attempt
        self.at = at
        #: Processors kept busy since the figures before; None with the first ones.
        self.cpus: float | None = None
        if before is not None and before.attempt == figures.attempt and at > before.at:
            now_ms, then_ms = figures.cpu_ms, before.figures.cpu_ms
            if now_ms is not None and then_ms is not None and now_ms >= then_ms:
                self.cpus = (now_ms - then_ms) / 1000 / (at - before.at)


class TaskRecord:
    """A task, from its submission until it is forgotten."""

    __slots__ = (
        "acknowledged",
        "agent_id",
        "attempt",
        "avoid",
        "changed_at",
        "confirmed",
        "exit_code",
        "failures",
        "framework_id",
        "id",
        "implementation",
        "index",
        "key",
        "kill_grace_s",
        "kill_reason",
        "losses",
        "message",
        "not_before",
        "reason",
        "resources",
        "restarts",
        "result",
        "said_seq",
        "sent_at",
        "signal",
        "spec",
        "state",
        "status_seq",
        "story",
        "submitted_at",
        "usage",
        "version",
    )

    def __init__(
        self,
        task_id: TaskId,
        framework_id: FrameworkId,
        key: str,
        index: int,
        spec: TaskSpec,
        submitted_at: float,
    ) -> None:
        self.id = task_id
        self.framework_id = framework_id
        #: The framework's own name for the submission; shared by the instances of one spec.
        self.key = key
        #: Which instance of the spec.
        self.index = index
        self.spec = spec
        self.submitted_at = submitted_at
        self.state = TaskState.PENDING
        self.reason = ""
        self.message = ""
        self.changed_at = submitted_at
        #: Counts changes; the framework ignores older news.
        self.version = 0
        #: Number of the latest placement; 0 before the first.
        self.attempt = 0
        #: Agent of the latest placement. Set while `state.on_agent`, and kept afterwards.
        self.agent_id: AgentId | None = None
        #: Index into `spec.implementations` of the latest placement.
        self.implementation = 0
        #: Granted by the latest placement; held while the agent's holdings list the task.
        self.resources = EMPTY
        #: Restarts in place within the attempt.
        self.restarts = 0
        #: The agent has said, in a status update or in a registration, that it has the attempt.
        self.confirmed = False
        #: Last status update taken in, within the attempt.
        self.status_seq = 0
        #: The last number that its agent's process knows; None: it has not said. Not kept on the disk.
        self.said_seq: int | None = None
        #: When its latest order was sent.
        self.sent_at = 0.0
        #: Why somebody wants it dead; "" if nobody does. `agent-draining` means: run it elsewhere.
        self.kill_reason = ""
        self.kill_grace_s: float | None = None
        self.failures = 0
        self.losses = 0
        #: No placement before this time.
        self.not_before = 0.0
        #: Agents where it has just failed.
        self.avoid: frozenset[AgentId] = frozenset()
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.result: bytes | None = None
        #: The framework has seen the end.
        self.acknowledged = False
        #: What the current attempt used when its agent last told; not written down.
        self.usage: UsageRecord | None = None
        self.story: list[StoryEntry] = []


class FrameworkRecord:
    """A framework and what it holds."""

    __slots__ = (
        "allocated",
        "allocations",
        "disconnected_at",
        "ended",
        "filters",
        "info",
        "keys",
        "live",
        "offers",
        "pending",
        "registered_at",
        "session_id",
        "state",
        "suppressed",
    )

    def __init__(self, info: FrameworkInfo, registered_at: float) -> None:
        self.info = info
        self.state = FrameworkState.DISCONNECTED
        self.session_id: SessionId | None = None
        self.registered_at = registered_at
        self.disconnected_at = registered_at
        self.suppressed = False
        #: Tasks that wait for a placement now, longest waiting first.
        self.pending: dict[TaskId, TaskRecord] = {}
        #: All tasks that have not ended.
        self.live: dict[TaskId, TaskRecord] = {}
        #: Ended tasks still on record.
        self.ended: dict[TaskId, TaskRecord] = {}
        #: Submission key to task ids, for resubmissions.
        self.keys: dict[str, tuple[TaskId, ...]] = {}
        self.offers: set[OfferId] = set()
        #: What tasks and offers hold, by name in 1/1000.
        self.allocated: dict[str, int] = {}
        #: How many tasks and offers hold something.
        self.allocations = 0
        #: Declined: agent to (until, what was refused).
        self.filters: dict[AgentId, tuple[float, Resources]] = {}

    @property
    def id(self) -> FrameworkId:
        return self.info.id


class OfferRecord:
    """Resources of one agent held for one framework until it answers."""

    __slots__ = ("agent_id", "charge", "expires_at", "framework_id", "id", "resources")

    def __init__(
        self,
        offer_id: OfferId,
        framework_id: FrameworkId,
        agent_id: AgentId,
        resources: Resources,
        charge: dict[str, int],
        expires_at: float,
    ) -> None:
        self.id = offer_id
        self.framework_id = framework_id
        self.agent_id = agent_id
        self.resources = resources
        self.charge = charge
        self.expires_at = expires_at


def fair_amounts(resources: Resources, devices: Mapping[str, Device]) -> dict[str, int]:
    """Return what fair sharing counts of concrete resources: amounts by name in 1/1000, device slots
    as `device/<type>`."""
    if not (resources.ranges or resources.sets or resources.devices):
        return resources.scalars
    amounts = resources.quantities()
    for device_id, slots in resources.devices.items():
        device = devices.get(device_id)
        if device is not None:
            key = f"device/{device.type}"
            amounts[key] = amounts.get(key, 0) + slots * UNIT
    return amounts
