"""What plugins provide: Transport, Executor, Scheduler, DeviceDriver, Store.

Each interface is as small as its job allows, and each has a contract suite in
`edgerm_core.testing.contracts` that runs over every implementation, ours and yours. A plugin hands
core a `Provider`: a name, the type of its config section and a factory; nothing heavy is imported
before the factory is called.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from edgerm_core.agents import Fingerprint
from edgerm_core.attributes import Attributes
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.resources import Device, Resources
from edgerm_core.tasks import ExitResult, Implementation, TaskSpec, Volume

API_VERSION: Final = 1
"""Of this file. A plugin built for another one is disabled with a sentence that says so."""

T = TypeVar("T")


class Provider(msgspec.Struct, Generic[T], frozen=True):
    """How a hook hands an implementation to core.

    Attributes:
        name: what config and commands call it, such as `ws`, `wasm`, `drf`.
        config_type: a msgspec Struct for the plugin's config section; None if it takes none. The
            section's name is `<kind>.<name>`, such as `[transport.ws]`.
        create: makes the implementation out of the decoded section (or None). Import heavy
            libraries here, not at module level. May raise PluginError with a sentence that says
            what is missing on this machine and how to get it.
        summary: one line for `edgerm plugins`.
        schemes: transports only: the URL schemes it speaks.
        api_version: the version of this interface the plugin was written for.
    """

    name: str
    create: Callable[[Any], T]
    config_type: type[msgspec.Struct] | None = None
    summary: str = ""
    schemes: frozenset[str] = frozenset()
    api_version: int = API_VERSION


# --- transports -------------------------------------------------------------------------------


class Connection(abc.ABC):
    """Whole messages (bytes) to one peer and back, in order, each at most once.

    A connection that broke stays broken: both `send` and `receive` raise ConnectionClosed. Nothing
    tells the sender whether the last messages before that arrived; the protocol copes. What was sent
    before an orderly `close` does arrive at a peer that reads. After closing, nothing more is received.

    Attributes:
        peer: the other end, for people, such as `ws://192.0.2.7:51034`.
        max_message_bytes: the largest message `send` takes.
        push: whether `send` reaches the peer by itself. Where it cannot (CoAP through a NAT), the
            master's messages wait for the peer's next request.
        identity: whom the transport has authenticated, such as a certificate's name; None: nobody.
        local: whether the peer is on this machine, so that nobody else can be listening.
    """

    peer: str
    max_message_bytes: int
    push: bool
    identity: str | None
    local: bool

    @abc.abstractmethod
    async def send(self, data: bytes) -> None:
        """Send one message; waits while the peer is too slow (back-pressure).

        Cancelling may lose the message, never half of it: the connection is closed if part of it
        left. Safe to call from one coroutine at a time.

        Raises:
            ConnectionClosed: if the connection has ended.
            ValueError: if `data` is larger than `max_message_bytes`.
        """

    def send_nowait(self, data: bytes) -> bool:
        """Send one message if that needs no waiting; return whether it has been sent.

        A transport that cannot tell leaves this as it is: the master then has a task for each connection
        that sends, some 4 KiB. Called only while no `send` is under way. What makes `send` raise may make
        it raise the same, or return False.
        """
        return False

    @abc.abstractmethod
    async def receive(self) -> bytes:
        """Return the next message; waits for it. Cancel-safe: a cancelled call loses nothing.

        Raises:
            ConnectionClosed: if the connection has ended, or the peer sent a message larger than
                this side takes; its sentence says which.
        """

    @abc.abstractmethod
    async def close(self, reason: str = "") -> None:
        """End the connection, telling the peer why where the transport can. Idempotent; never raises."""


class Listener(abc.ABC):
    """A place where peers connect.

    Attributes:
        url: where it really listens (with the port the system chose if the config said 0).
    """

    url: str

    @abc.abstractmethod
    async def serve(self, handler: Callable[[Connection], Awaitable[None]]) -> None:
        """Call `handler` for each connection, concurrently, until cancelled or closed.

        The connection is closed when its handler returns. A handler that raises ends its own
        connection only.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Stop listening and end all connections. Idempotent."""


class Transport(abc.ABC):
    """Speaks the URLs of some schemes.

    Attributes:
        schemes: such as `{"ws", "wss"}`.
    """

    schemes: frozenset[str]

    @abc.abstractmethod
    async def listen(self, url: str) -> Listener:
        """Bind and return the listener; peers wait until `serve` runs.

        Raises:
            TransportError: if the address is taken or not allowed, with a sentence that says so.
            ConfigError: if the URL makes no sense.
        """

    @abc.abstractmethod
    async def connect(self, url: str) -> Connection:
        """Dial and return the connection. Cancel-safe.

        Raises:
            TransportError: if nobody answers, or answers wrongly; the sentence says what to check.
            ConfigError: if the URL makes no sense.
        """


# --- executors --------------------------------------------------------------------------------


class TaskLaunch(msgspec.Struct, frozen=True):
    """All an executor needs to start one run of a task. Core has fetched and checked every blob.

    Attributes:
        task_id, attempt, restarts: which run; `(attempt, restarts)` is the fence for devices.
        name: for people.
        implementation: what to run, its executor-specific options unchecked.
        blob_path: the implementation's module on disk, read-only and content-addressed; None if it
            has none. `implementation.blob` is its SHA-256.
        resources: what was granted.
        env: complete: the spec's variables and core's `EDGERM_*`.
        volumes: spec's volumes with the host directories that core made for them, and the mounts of
            its devices.
        kill_grace_s: from the spec.
        device_nodes: paths in /dev that belong to the devices it was granted.
    """

    task_id: TaskId
    attempt: int
    restarts: int
    name: str
    implementation: Implementation
    blob_path: Path | None
    resources: Resources
    env: dict[str, str]
    volumes: tuple[tuple[Volume, Path], ...] = ()
    kill_grace_s: float = 5.0
    device_nodes: tuple[str, ...] = ()


class Sandbox(Protocol):
    """The task's place on the agent's disk. Directories appear when first asked for."""

    @property
    def work_dir(self) -> Path:
        """Working directory, with the spec's files in it. Removed with the sandbox."""
        ...

    @property
    def state_dir(self) -> Path:
        """For the executor's own files that must outlive the agent process. Removed with the sandbox."""
        ...

    @property
    def log_dir(self) -> Path:
        """Where `logs.LogWriter` keeps the rings; kept for a while after the task's end."""
        ...

    @property
    def log_limit_bytes(self) -> int:
        """Size of each ring."""
        ...

    def report(self, text: str) -> None:
        """Tell how far the start has come, in one sentence, such as `pulling busybox: 3 of 7 MiB`.

        For the task's story; call it from the event loop, while `start` runs. Of what comes faster
        than one in `limits.PROGRESS_EVERY_S` the latest is told. A start that reports may take as
        long as it needs; one that is silent for ten minutes has failed.
        """
        ...


class TaskHandle(msgspec.Struct, frozen=True, array_like=True):
    """Names one run for its executor; serialises, so that the run can outlive the agent process.

    Attributes:
        executor: whose handle it is.
        version: of `data`'s layout, the executor's own count.
        data: what the executor needs to find the run again; plain values.
    """

    executor: str
    version: int = 1
    data: dict[str, Any] = {}


class TaskStats(msgspec.Struct, frozen=True, array_like=True):
    """What a run uses. None: not known here.

    Attributes:
        cpu_s: processor time so far, in seconds.
        mem_bytes: memory now.
        mem_peak_bytes: most memory so far.
        net_rx_bytes, net_tx_bytes: received and sent over its own network so far.
    """

    cpu_s: float | None = None
    mem_bytes: int | None = None
    mem_peak_bytes: int | None = None
    net_rx_bytes: int | None = None
    net_tx_bytes: int | None = None


class Executor(abc.ABC):
    """Runs tasks of one kind on an agent. Never blocks the event loop for longer than a few ms.

    Core calls `fingerprint` and then `sweep` once, before any run. Then, for each run: `start`, `wait`
    (at once, until it returns), perhaps `stop` while `wait` is under way, then `destroy`. After an
    agent restart `recover` takes the place of `start`.

    Attributes:
        name: what implementations refer to.
    """

    name: str

    @abc.abstractmethod
    async def fingerprint(self) -> Fingerprint:
        """Return what works here, now. Called at start and every now and then; never raises."""

    @abc.abstractmethod
    async def start(self, launch: TaskLaunch, sandbox: Sandbox) -> TaskHandle:
        """Start the run and return once it runs. If cancelled, nothing stays behind.

        Raises:
            ExecutorError: if it cannot be started; `reason` becomes the status's reason, and
                `recoverable` says whether another try may succeed.
            SpecError: if the implementation's options make no sense (the task becomes ERROR).
        """

    @abc.abstractmethod
    async def wait(self, handle: TaskHandle) -> ExitResult:
        """Return how the run ended, as soon as it has; also if it ended long ago.

        Cancel-safe, repeatable.
        """

    @abc.abstractmethod
    async def stop(self, handle: TaskHandle, grace_s: float) -> None:
        """Ask the run to end, and end it and all it started after `grace_s` seconds. Idempotent.

        Returns when the run has ended. A run that ended before is no error.
        """

    @abc.abstractmethod
    async def destroy(self, handle: TaskHandle) -> None:
        """Release everything the run still holds (processes, groups, memory). Idempotent; never raises.

        A run that still goes on is ended at once.
        """

    @abc.abstractmethod
    async def recover(self, handle: TaskHandle) -> TaskHandle:
        """Take up a run that an earlier agent process started; `wait` works afterwards.

        Raises:
            TaskLost: if neither the run nor its exit can be found.
        """

    async def sweep(self, kept: Sequence[TaskHandle]) -> None:  # noqa: B027 - most leave nothing behind
        """End and remove every run that an earlier process of this agent started, except those `kept`.

        An agent that died between starting a run and noting its handle knows nothing of that run. What
        belongs to other agents or other programs is never touched. Idempotent; never raises. An
        executor that cannot reach its runs now does it as soon as it can.
        """

    async def stats(self, handle: TaskHandle) -> TaskStats:
        """Return what the run uses now; all None if it has ended or cannot be asked. Never raises."""
        return TaskStats()

    async def close(self) -> None:  # noqa: B027 - most have nothing to do
        """The agent process ends. Runs that can survive go on; the others are ended. Idempotent."""


# --- schedulers -------------------------------------------------------------------------------


class AgentView(Protocol):
    """What a scheduler sees of an agent. Live and read-only: amounts change as placements count."""

    @property
    def id(self) -> AgentId: ...
    @property
    def totals(self) -> Resources: ...
    @property
    def free(self) -> Resources:
        """What nobody holds, offers counted as held."""
        ...

    @property
    def tasks_left(self) -> int:
        """How many more tasks it takes, whatever they ask for. Offers count as none."""
        ...

    @property
    def attributes(self) -> Attributes: ...
    @property
    def devices(self) -> Mapping[str, Device]:
        """By id, all of them; `free.devices` says which have slots left."""
        ...

    @property
    def executors(self) -> frozenset[str]:
        """Names of the healthy ones."""
        ...

    @property
    def max_message_bytes(self) -> int:
        """The largest message that its connection takes, and so the largest Launch."""
        ...

    @property
    def static_version(self) -> int:
        """Grows when anything of the above changes, but for `free` and `tasks_left`."""
        ...


class TaskView(Protocol):
    """What a scheduler sees of a task that waits for a placement."""

    @property
    def id(self) -> TaskId: ...
    @property
    def framework_id(self) -> FrameworkId: ...
    @property
    def spec(self) -> TaskSpec: ...
    @property
    def avoid(self) -> frozenset[AgentId]:
        """Agents where it has just failed: worse than any other, but better than none."""
        ...


class FrameworkView(Protocol):
    """What a scheduler sees of a framework."""

    @property
    def id(self) -> FrameworkId: ...
    @property
    def role(self) -> str: ...
    @property
    def weight(self) -> int:
        """In 1/1000."""
        ...

    @property
    def allocated(self) -> Mapping[str, int]:
        """What its tasks and offers hold, by name in 1/1000, devices as `device/<type>`."""
        ...

    @property
    def allocations(self) -> int:
        """How many tasks and offers hold something."""
        ...

    @property
    def pending(self) -> Iterable[TaskView]:
        """Its tasks that wait for a placement now, longest waiting first. Cheap to iterate in part."""
        ...

    @property
    def pending_count(self) -> int: ...
    @property
    def wants_offers(self) -> bool:
        """Connected, subscribed for offers, not suppressed, and below its limit of offers."""
        ...


class Snapshot(Protocol):
    """The cluster as a scheduler sees it.

    It is a window on the master's books and not a copy, so that it costs nothing at 10,000 agents.
    It does not change while `schedule` runs: placements a scheduler returns count only afterwards, so
    within one call it keeps its own account of what it has given away.

    The three `*_changes` say what is new since the previous call on the same scheduler object, so
    that an index can be kept up to date rather than built anew. On the first call, and whenever
    `complete` is true, they name everything and the scheduler must forget what it knew.
    """

    @property
    def now(self) -> float:
        """Seconds by the master's clock."""
        ...

    @property
    def complete(self) -> bool: ...
    @property
    def totals(self) -> Mapping[str, int]:
        """Sum over all schedulable agents, by name in 1/1000, devices as `device/<type>`."""
        ...

    @property
    def agents(self) -> Mapping[AgentId, AgentView]:
        """Agents that may get tasks now."""
        ...

    @property
    def frameworks(self) -> Mapping[FrameworkId, FrameworkView]: ...
    @property
    def agent_changes(self) -> frozenset[AgentId]:
        """Agents that came, went, or whose `free` or static facts changed in any way."""
        ...

    @property
    def framework_changes(self) -> frozenset[FrameworkId]:
        """Frameworks that came, went, or whose weight, role, allocation or offers wish changed."""
        ...

    @property
    def task_changes(self) -> frozenset[TaskId]:
        """Tasks that began or ceased to wait for a placement. Look them up with `pending_task`."""
        ...

    def pending_task(self, task_id: TaskId) -> TaskView | None:
        """Return the task if it waits for a placement now."""
        ...

    def refused(self, framework_id: FrameworkId, agent_id: AgentId, free: Resources) -> bool:
        """Return whether a decline's filter keeps `free` of that agent from being offered."""
        ...


class Placement(msgspec.Struct, frozen=True, array_like=True):
    """Run this task on that agent."""

    task_id: TaskId
    agent_id: AgentId


class OfferProposal(msgspec.Struct, frozen=True, array_like=True):
    """Offer all that is free on that agent (after the placements before it) to that framework."""

    framework_id: FrameworkId
    agent_id: AgentId


Decision = Placement | OfferProposal


class Scheduler(abc.ABC):
    """Decides who gets what. Pure: no I/O, no clock, no randomness of its own, no reference kept to
    anything in a snapshot beyond ids and numbers.

    Plugins propose, the master disposes: every decision is checked, in order, against what is free
    then. One that does not fit is refused and counted, and nothing else happens to it.
    """

    @abc.abstractmethod
    def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
        """Return decisions, in the order in which they shall count.

        Called after every batch of changes that could let something be placed. May return a part of
        what is possible (to bound its time); the master calls again while decisions keep coming. A call
        that does not return within 10 s is broken off, and the scheduler is left alone for a minute.
        """

    def explain(self, task: TaskView, snapshot: Snapshot) -> str:
        """Return one sentence on the policy's side of why the task waits, or nothing."""
        return ""


# --- device drivers ---------------------------------------------------------------------------


class Attachment(msgspec.Struct, frozen=True, array_like=True):
    """What a task gets for a device it holds.

    Attributes:
        env: environment variables, such as `{"EDGERM_DEVICE_BME280_0": "/dev/i2c-1"}`.
        device_nodes: paths in /dev to hand to the task.
        mounts: host path to path in the task.
    """

    env: dict[str, str] = {}
    device_nodes: tuple[str, ...] = ()
    mounts: dict[str, str] = {}


class Fence(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Orders the runs of a task; an actuator obeys the largest it has seen."""

    attempt: int
    restarts: int = 0


class DeviceDriver(abc.ABC):
    """Finds devices of some types and hands them to tasks.

    Attributes:
        name: for config and people.
    """

    name: str

    @abc.abstractmethod
    def discover(self) -> AsyncIterator[tuple[Device, ...]]:
        """Yield all devices of this driver at once, then again whenever one comes, goes or changes
        its health. Never ends by itself; cancel-safe."""

    @abc.abstractmethod
    async def reserve(self, device_id: str, task_id: TaskId, fence: Fence) -> Attachment:
        """Hand a slot of the device to a run. Idempotent for the same task and fence.

        Raises:
            ExecutorError: with reason `resources-unavailable`, if the device is gone, has no slot
                left, or a larger fence of the same task has been seen.
        """

    @abc.abstractmethod
    async def release(self, device_id: str, task_id: TaskId, fence: Fence) -> None:
        """Take the slot back from that run. Idempotent; never raises."""

    async def read(self, device_id: str, channel: str) -> float | str:
        """Return a channel's value, in the unit that `Device.channels` names.

        Raises:
            ExecutorError: if the device or the channel is not there, or reading fails.
        """
        raise NotImplementedError(f"driver {self.name} has no channels to read")

    async def write(
        self, device_id: str, channel: str, value: float | str, task_id: TaskId, fence: Fence
    ) -> None:
        """Set a channel on behalf of the run that holds the device.

        Raises:
            ExecutorError: if a run with a larger fence holds the device, or writing fails.
        """
        raise NotImplementedError(f"driver {self.name} has no channels to write")

    async def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Release everything. Idempotent."""


# --- stores -----------------------------------------------------------------------------------


class Write(msgspec.Struct, frozen=True, array_like=True):
    """Put `value` under `(kind, key)`, or with None remove what is there."""

    kind: str
    key: bytes
    value: bytes | None


class Store(abc.ABC):
    """Where the master's records live. Synchronous; the runner calls it in a worker thread, one call
    at a time."""

    @abc.abstractmethod
    def load(self) -> Iterator[tuple[str, bytes, bytes]]:
        """Yield every record as (kind, key, value), keys of a kind in ascending order.

        Raises:
            StoreError: if the records are damaged, with a sentence on what to do.
        """

    @abc.abstractmethod
    def commit(self, writes: Sequence[Write]) -> None:
        """Make all writes durable, or none. When it returns they survive a power cut.

        Of several writes to one place the last one counts.

        Raises:
            StoreError: if the disk is full or failing; nothing of the batch was kept.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release the data directory. Idempotent."""


class StoreOpener(Protocol):
    """What a `stores` provider creates: opens the store of a data directory.

    Raises:
        StoreLocked: if another process owns the directory.
        StoreError: if it cannot be written, or holds records of a newer layout.
    """

    def __call__(self, data_dir: Path) -> Store: ...


__all__ = [
    "API_VERSION",
    "AgentView",
    "Attachment",
    "Connection",
    "Decision",
    "DeviceDriver",
    "Executor",
    "Fence",
    "FrameworkView",
    "Listener",
    "OfferProposal",
    "Placement",
    "Provider",
    "Sandbox",
    "Scheduler",
    "Snapshot",
    "Store",
    "StoreOpener",
    "TaskHandle",
    "TaskLaunch",
    "TaskStats",
    "TaskView",
    "Transport",
    "Write",
]
