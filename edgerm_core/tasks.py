"""Tasks: what one is, what a spec may ask for, and which state may follow which.

A task is the one unit that runs. Its life is the literal table `TRANSITIONS`; a step that the table
does not list raises `TransitionError` with the task's story. Two numbers order what happens to it:

`attempt` is given by the master and grows with every placement. The agent may restart the task in
place, which counts `restarts` within the attempt. `(attempt, restarts)` compared as a pair is the
fence that device drivers check: whatever carries a smaller pair is an old run that came back.

A spec and its parts are maps on the wire, defaults left out: they are what people extend most, and
a policy that was not touched costs one byte.

States follow Mesos (`mesos.proto` TaskState), without LOST, which Mesos itself split up because it
was not always final, and with Nomad's PENDING.
"""

from __future__ import annotations

import enum
from typing import Any, Final, Literal

import msgspec

from edgerm_core.attributes import Constraint, Preference
from edgerm_core.errors import SpecError
from edgerm_core.ids import BlobId, check_name
from edgerm_core.limits import MAX_SUBMIT_TASKS
from edgerm_core.resources import ResourceRequest
from edgerm_core.values import MAX_DURATION_S, NOT_PLAIN, is_plain


class TaskState(enum.IntEnum):
    """Where a task stands. Integers, because a state costs one byte on the wire."""

    PENDING = 1
    """Waits for a placement; its reason says for what."""
    STAGING = 2
    """Placed; the agent has not confirmed the launch yet."""
    STARTING = 3
    """The agent fetches what the task needs, or starts (or restarts) it."""
    RUNNING = 4
    KILLING = 5
    """A kill is on its way or its grace period runs."""
    UNREACHABLE = 6
    """Its agent is silent; the task may or may not run. Not final."""
    FINISHED = 10
    """Ended by itself, successfully. Final, as are all that follow."""
    FAILED = 11
    """Ended by itself, badly, or was ended for breaking a limit."""
    KILLED = 12
    """Ended because somebody asked for it."""
    ERROR = 13
    """The spec is wrong; it never ran and never will."""
    DROPPED = 14
    """Never started, though nothing is wrong with it, and the policy does not try again."""
    GONE = 15
    """Its agent is gone for good, and the policy does not try again."""

    @property
    def terminal(self) -> bool:
        """Whether nothing follows."""
        return self >= 10

    @property
    def on_agent(self) -> bool:
        """Whether the task holds resources of an agent."""
        return 2 <= self <= 6


_S = TaskState
_ENDS: Final = frozenset({_S.FINISHED, _S.FAILED, _S.KILLED, _S.ERROR, _S.DROPPED, _S.GONE})

TRANSITIONS: Final[dict[TaskState, frozenset[TaskState]]] = {
    _S.PENDING: frozenset({_S.STAGING, _S.UNREACHABLE, _S.STARTING, _S.RUNNING, _S.KILLING}) | _ENDS,
    _S.STAGING: frozenset({_S.PENDING, _S.STARTING, _S.RUNNING, _S.KILLING, _S.UNREACHABLE}) | _ENDS,
    _S.STARTING: frozenset({_S.PENDING, _S.STARTING, _S.RUNNING, _S.KILLING, _S.UNREACHABLE}) | _ENDS,
    _S.RUNNING: frozenset({_S.PENDING, _S.STARTING, _S.RUNNING, _S.KILLING, _S.UNREACHABLE}) | _ENDS,
    _S.KILLING: frozenset({_S.KILLING, _S.PENDING, _S.UNREACHABLE}) | _ENDS,
    _S.UNREACHABLE: frozenset({_S.PENDING, _S.STAGING, _S.STARTING, _S.RUNNING, _S.KILLING}) | _ENDS,
    _S.FINISHED: frozenset(),
    _S.FAILED: frozenset(),
    _S.KILLED: frozenset(),
    _S.ERROR: frozenset(),
    _S.DROPPED: frozenset(),
    _S.GONE: frozenset(),
}
"""State to the states that may follow. PENDING -> STARTING or RUNNING is the return of an agent whose
task was already waiting for a replacement: the old run is taken back instead of a second start.
KILLING -> PENDING is a task that is moved away from a draining agent."""


class Reason(enum.StrEnum):
    """Why a task is in its state. Plugins may add their own; these are core's."""

    SUBMITTED = "submitted"
    WAITING_RESOURCES = "waiting-for-resources"
    WAITING_BLOB = "waiting-for-blob"
    PLACED = "placed"
    ACCEPTED_OFFER = "accepted-offer"
    FETCHING = "fetching"
    STARTING = "starting"
    RESTARTING = "restarting"
    STARTED = "started"
    EXITED = "exited"
    EXIT_CODE = "exit-code"
    SIGNALED = "signaled"
    TRAP = "trap"
    OUT_OF_MEMORY = "out-of-memory"
    TIME_LIMIT = "time-limit"
    PID_LIMIT = "pid-limit"
    LAUNCH_FAILED = "launch-failed"
    LAUNCH_TOO_LARGE = "launch-too-large"
    BLOB_UNAVAILABLE = "blob-unavailable"
    BLOB_INVALID = "blob-invalid"
    EXECUTOR_UNAVAILABLE = "executor-unavailable"
    RESOURCES_UNAVAILABLE = "resources-unavailable"
    SPEC_INVALID = "spec-invalid"
    KILL_REQUESTED = "kill-requested"
    KILLED_BY_REQUEST = "killed-by-request"
    FRAMEWORK_REMOVED = "framework-removed"
    AGENT_UNREACHABLE = "agent-unreachable"
    AGENT_RETURNED = "agent-returned"
    AGENT_RESTARTED = "agent-restarted"
    AGENT_REMOVED = "agent-removed"
    AGENT_DRAINING = "agent-draining"
    STOPPED_WHILE_DISCONNECTED = "stopped-while-disconnected"
    REPLACED = "replaced"
    RESCHEDULED = "rescheduled"
    TOO_MANY_LOSSES = "too-many-losses"


LOSSES: Final = frozenset(
    {
        Reason.AGENT_RESTARTED,
        Reason.AGENT_REMOVED,
        Reason.AGENT_DRAINING,
        Reason.EXECUTOR_UNAVAILABLE,
        Reason.RESOURCES_UNAVAILABLE,
        Reason.BLOB_UNAVAILABLE,
        Reason.STOPPED_WHILE_DISCONNECTED,
    }
)
"""Ends that are not the task's fault. They do not use up its failures; the task is placed again."""


class Implementation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One way to run the task.

    Attributes:
        executor: name of the executor plugin, such as `wasm`, `process`, `docker`.
        blob: the module it runs, by content; None where there is none.
        args: arguments. `process`: the command and its arguments. `wasm`: arguments of the command
            module, or the values for the exported function.
        options: what only this executor knows, checked by it, such as `{"function": "analyse"}` for
            `wasm` or `{"image": "busybox"}` for `docker`.
    """

    executor: str
    blob: BlobId | None = None
    args: tuple[str | int | float, ...] = ()
    options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not is_plain(self.options):
            raise SpecError(f"options of {self.executor[:64]}: {NOT_PLAIN}")


class File(msgspec.Struct, frozen=True, omit_defaults=True):
    """A blob placed into the task's working directory before it starts."""

    path: str
    blob: BlobId
    executable: bool = False


class Volume(msgspec.Struct, frozen=True, omit_defaults=True):
    """A directory for the task.

    Attributes:
        path: where the task sees it; relative to its working directory for `process`.
        name: a persistent volume of that name on the agent's disk, found again by later tasks of
            the same framework; empty for a temporary one that goes with the task.
        read_only: whether writing is refused where the executor can.
    """

    path: str
    name: str = ""
    read_only: bool = False


class RestartPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Restarts in place, by the agent itself, with or without the master.

    Attributes:
        on: `never`, after a `failure`, or `always` (a service: also after a success, and for ever).
        attempts: with `failure`: restarts within `interval_s`; after that the attempt has FAILED.
        delay_s: before the first restart; doubles up to `max_delay_s` and falls back to `delay_s`
            after a run of `interval_s`.
    """

    on: Literal["never", "failure", "always"] = "never"
    attempts: int = 3
    interval_s: float = 300.0
    delay_s: float = 1.0
    max_delay_s: float = 60.0


class ReschedulePolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """New attempts elsewhere, by the master.

    Attributes:
        failures: how many FAILED attempts are tried again.
        losses: how many attempts may be lost through no fault of the task (agent gone, agent
            restarted). Bounded, because a task that takes its agent down with it looks the same.
        delay_s: before a new attempt after a failure; doubles up to `max_delay_s`.
    """

    failures: int = 0
    losses: int = 10
    delay_s: float = 1.0
    max_delay_s: float = 300.0


class DisconnectPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happens while the task's agent is silent.

    Attributes:
        lost_after_s: how long the task stays UNREACHABLE before it counts as lost.
        replace: whether a lost task is placed elsewhere; otherwise it waits for its agent.
        stop_after_s: the agent itself stops the task after this long without the master; None: never.
    """

    lost_after_s: float = 30.0
    replace: bool = True
    stop_after_s: float | None = None


class TaskSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """All a framework says about a task. Checked by `check_spec` on every way in.

    Attributes:
        name: for people; need not be unique.
        implementations: tried in this order: the first that an agent can run is the one it runs.
        resources: what it holds while it is on an agent.
        env: environment variables; core adds `EDGERM_TASK_ID`, `EDGERM_TASK_NAME`,
            `EDGERM_TASK_INDEX`, `EDGERM_ATTEMPT`, `EDGERM_AGENT_ID`, and `EDGERM_PORTS` and
            `EDGERM_PORT_<n>` where ports were granted.
        constraints: facts its agent must show.
        preferences: facts that would be nice.
        time_limit_s: running longer ends it as FAILED; None: no limit.
        kill_grace_s: between being asked to stop and being stopped.
        instances: how many tasks this spec makes.
    """

    name: str
    implementations: tuple[Implementation, ...]
    resources: ResourceRequest = ResourceRequest()
    env: dict[str, str] = {}
    constraints: tuple[Constraint, ...] = ()
    preferences: tuple[Preference, ...] = ()
    files: tuple[File, ...] = ()
    volumes: tuple[Volume, ...] = ()
    restart: RestartPolicy = RestartPolicy()
    reschedule: ReschedulePolicy = ReschedulePolicy()
    disconnect: DisconnectPolicy = DisconnectPolicy()
    time_limit_s: float | None = None
    kill_grace_s: float = 5.0
    instances: int = 1

    def blobs(self) -> set[BlobId]:
        """Return the blobs any implementation or file needs."""
        return {i.blob for i in self.implementations if i.blob} | {f.blob for f in self.files}


class ExitResult(msgspec.Struct, frozen=True, array_like=True):
    """How one run of a task ended.

    Attributes:
        ok: whether the task did what it should (exit code 0, function returned).
        reason: machine-readable, one of `Reason` or the executor's own.
        message: one sentence for a person, and below it what the runtime said (a trap's backtrace).
        exit_code: None when a signal or a trap ended it.
        signal: number of the signal that ended it.
        result: the task's small result value, if it has one.
    """

    ok: bool
    reason: str
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    result: bytes | None = None


class StoryEntry(msgspec.Struct, frozen=True, array_like=True):
    """One line of a task's story.

    Attributes:
        at: Unix time in seconds, by the master's clock.
        state: the state it entered.
        reason: why.
        source: who said so: `master`, `agent`, `framework`, `operator`.
        message: one sentence, may be empty.
        attempt: which attempt it is about.
        agent_id: on which agent; empty before placement.
    """

    at: float
    state: TaskState
    reason: str
    source: str
    message: str = ""
    attempt: int = 0
    agent_id: str = ""


MAX_ENV_BYTES: Final = 64 << 10
MAX_ARGS_BYTES: Final = 128 << 10
MAX_IMPLEMENTATIONS: Final = 8
MAX_CONSTRAINTS: Final = 64
MAX_FILES: Final = 256
MAX_WEIGHT: Final = 1_000_000
"""Of a preference; keeps sums of scores exact enough to compare."""


def check_spec(spec: TaskSpec) -> None:
    """Check all that core can know about a spec; executors check their own options at launch.

    Raises:
        SpecError: one sentence that names the field and what was expected.
    """
    check_name(spec.name, "task name")
    if not 1 <= len(spec.implementations) <= MAX_IMPLEMENTATIONS:
        raise SpecError(f"task {spec.name}: expected 1 to {MAX_IMPLEMENTATIONS} implementations")
    for implementation in spec.implementations:
        check_name(implementation.executor, "executor")
        if sum(len(str(arg)) for arg in implementation.args) > MAX_ARGS_BYTES:
            raise SpecError(f"task {spec.name}: arguments exceed {MAX_ARGS_BYTES} bytes")
    for blob in spec.blobs():
        if len(blob) != 32:
            raise SpecError(f"task {spec.name}: a blob id is a SHA-256 of 32 bytes, not {len(blob)}")
    _check_env(spec)
    if len(spec.constraints) + len(spec.preferences) > MAX_CONSTRAINTS:
        raise SpecError(f"task {spec.name}: more than {MAX_CONSTRAINTS} constraints and preferences")
    if len(spec.files) > MAX_FILES or len(spec.volumes) > MAX_FILES:
        raise SpecError(f"task {spec.name}: more than {MAX_FILES} files or volumes")
    for file in spec.files:
        check_relative_path(file.path, f"task {spec.name}: file")
    for volume in spec.volumes:
        check_relative_path(volume.path.lstrip("/"), f"task {spec.name}: volume path")
        if volume.name:
            check_name(volume.name, f"task {spec.name}: volume")
    for preference in spec.preferences:
        if not abs(preference.weight) <= MAX_WEIGHT:
            raise SpecError(f"task {spec.name}: preferences: weight must be -{MAX_WEIGHT} to {MAX_WEIGHT}")
    if not 1 <= spec.instances <= MAX_SUBMIT_TASKS:
        raise SpecError(
            f"task {spec.name}: instances must be 1 to {MAX_SUBMIT_TASKS}, not {spec.instances}"
        )
    durations: dict[str, float | None] = {
        "time_limit_s": spec.time_limit_s,
        "kill_grace_s": spec.kill_grace_s,
        "restart.delay_s": spec.restart.delay_s,
        "restart.max_delay_s": spec.restart.max_delay_s,
        "restart.interval_s": spec.restart.interval_s,
        "reschedule.delay_s": spec.reschedule.delay_s,
        "reschedule.max_delay_s": spec.reschedule.max_delay_s,
        "disconnect.lost_after_s": spec.disconnect.lost_after_s,
        "disconnect.stop_after_s": spec.disconnect.stop_after_s,
    }
    for field, value in durations.items():
        # The comparison is written so that NaN fails it too.
        if value is not None and not 0 <= value <= MAX_DURATION_S:
            raise SpecError(f"task {spec.name}: {field} must be 0 to {MAX_DURATION_S:.0f} s, not {value}")
    for count_field, count in {
        "restart.attempts": spec.restart.attempts,
        "reschedule.failures": spec.reschedule.failures,
        "reschedule.losses": spec.reschedule.losses,
    }.items():
        if not 0 <= count <= 1_000_000:
            raise SpecError(f"task {spec.name}: {count_field} must be 0 to 1000000, not {count}")


def check_relative_path(path: str, what: str) -> None:
    """Check that `path` stays inside the directory it is joined to.

    Raises:
        SpecError: if it is empty, absolute, climbs with `..`, or holds a NUL.
    """
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or "\0" in path or len(path) > 512:
        raise SpecError(f"{what} {path[:80]!r} must be a relative path without '..'")


def _check_env(spec: TaskSpec) -> None:
    total = 0
    for name, value in spec.env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise SpecError(f"task {spec.name}: {name[:40]!r} cannot be an environment variable")
        total += len(name) + len(value)
    if total > MAX_ENV_BYTES:
        raise SpecError(f"task {spec.name}: environment exceeds {MAX_ENV_BYTES} bytes")
