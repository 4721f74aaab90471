"""CLUSTER.toml and WORKLOAD.toml: what there is, and what is asked of it.

    # CLUSTER.toml
    seed = 7
    [master]                                # as in edgerm.toml
    heartbeat_constrained_s = 60
    [scheduler.drf]                         # as in edgerm.toml
    strategy = "spread"
    [[agents]]
    name = "node"                           # node-01, node-02, …
    count = 40
    resources = "cpus:0.5;mem:64MiB"
    attributes = { link.class = "constrained" }
    executors = ["wasm"]
    link = { transport = "coap", latency_s = 0.2, bytes_per_s = 2000, loss = 0.01 }
    failures = { mtbf_s = 2592000, repair_s = 3600 }
    [[outage]]
    agents = ["node"]                       # groups, agents, or "*"
    from_s = 7200
    for_s = 21600

    # WORKLOAD.toml
    until_s = 86400
    [[framework]]
    name = "sensing"
    weight = 2
    [[framework.submission]]
    per_hour = 12
    task = { name = "sample", resources = "cpus:0.1", implementation = [{ executor = "wasm" }] }
    run = { duration_s = { uniform = [20, 40] }, failure = 0.02 }

Times are virtual seconds since the beginning. A key that is not known, and a value that makes no sense,
is refused with its path.
"""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from edgerm_core.attributes import Attributes
from edgerm_core.client.specs import Draft
from edgerm_core.config import MasterConfig, explain_validation, flatten_attributes
from edgerm_core.errors import ConfigError, ResourceError, SpecError
from edgerm_core.frameworks import FrameworkInfo, check_framework
from edgerm_core.ids import FrameworkId, check_name
from edgerm_core.resources import Device, Resources
from edgerm_core.specfile import read_task

T = TypeVar("T")

MAX_AGENTS: Final = 2_000
"""Agents of one scenario: what a laptop simulates in minutes."""

MAX_TASKS: Final = 100_000
"""Tasks of one scenario, instances counted, for the same reason."""

MAX_HORIZON_S: Final = 366 * 86_400.0
"""Longest virtual time."""

Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_HORIZON_S)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0, le=MAX_HORIZON_S)]
Probability = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Whole = Annotated[int, msgspec.Meta(ge=0)]


class LinkSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An agent's way to the master.

    Attributes:
        transport: `ws` (TCP, the master pushes) or `coap` (UDP; what waits travels with an answer).
        latency_s, jitter_s: of a frame, each way: a fixed part and the most that is added by chance.
        bytes_per_s: each way; None: no limit.
        loss: part of the frames that the transport has to send again.
    """

    transport: Literal["ws", "coap"] = "ws"
    latency_s: Seconds = 0.02
    jitter_s: Seconds = 0.01
    bytes_per_s: Annotated[float, msgspec.Meta(ge=1)] | None = None
    loss: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.0


class Failures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Machines that lose their power now and then.

    Attributes:
        mtbf_s: mean time between failures of one machine, exponentially distributed.
        repair_s: mean time until it is back, exponentially distributed.
    """

    mtbf_s: PositiveSeconds
    repair_s: PositiveSeconds = 600.0


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[agents]]`: agents that are alike.

    Attributes:
        name: of the group; its agents are `name-1`, `name-2`, …, or `name` where there is one.
        resources, attributes: of each agent, as in `[agent]`.
        executors: what each can run.
        devices: what is plugged into each.
        link: each agent's way to the master.
        failures: None: machines do not fail by themselves.
    """

    name: str
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_AGENTS)] = 1
    resources: str = "cpus:1;mem:512MiB"
    attributes: Attributes = {}
    executors: tuple[str, ...] = ("process",)
    devices: tuple[DeviceSpec, ...] = ()
    link: LinkSpec = LinkSpec()
    failures: Failures | None = None

    def agents(self) -> list[str]:
        """Return the names of its agents."""
        if self.count == 1:
            return [self.name]
        digits = len(str(self.count))
        return [f"{self.name}-{number:0{digits}}" for number in range(1, self.count + 1)]


class DeviceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One device of an agent, see `resources.Device`."""

    id: str
    type: str
    slots: int = 1
    attributes: Attributes = {}

    def device(self) -> Device:
        """Return it as an agent tells of it."""
        return Device(self.id, self.type, self.slots, self.attributes)


class Outage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[outage]]`.

    Attributes:
        agents: names of groups or agents; `*`: all.
        what: `link`: no way to the master, tasks go on; `power`: the machines are off.
        from_s, for_s: when, and how long.
    """

    agents: tuple[str, ...]
    from_s: Seconds
    for_s: PositiveSeconds
    what: Literal["link", "power"] = "link"


class ClusterFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """CLUSTER.toml.

    Attributes:
        seed: of all that is left to chance.
        master, scheduler: as in edgerm.toml.
    """

    agents: tuple[Group, ...]
    seed: Whole = 1
    master: MasterConfig = MasterConfig()
    scheduler: dict[str, dict[str, Any]] = {}
    outage: tuple[Outage, ...] = ()

    def affected(self, outage: Outage) -> list[str]:
        """Return the names of the agents that an outage is about."""
        return [
            name
            for group in self.agents
            for name in group.agents()
            if {"*", group.name, name} & set(outage.agents)
        ]


class Spread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A time left to chance: exactly one of these.

    Attributes:
        uniform: shortest and longest.
        exponential: the mean.
        lognormal: the median, and the standard deviation of the logarithm.
    """

    uniform: tuple[Seconds, Seconds] | None = None
    exponential: PositiveSeconds | None = None
    lognormal: tuple[PositiveSeconds, Annotated[float, msgspec.Meta(ge=0, le=5)]] | None = None

    def __post_init__(self) -> None:
        given = [part for part in (self.uniform, self.exponential, self.lognormal) if part is not None]
        if len(given) != 1:
            raise ValueError("expected exactly one of uniform, exponential, lognormal")
        if self.uniform is not None and self.uniform[0] > self.uniform[1]:
            raise ValueError("uniform: the first number must not be larger than the second")

    def draw(self, luck: random.Random) -> float:
        """Return one such time, in seconds."""
        if self.uniform is not None:
            return luck.uniform(*self.uniform)
        if self.exponential is not None:
            return luck.expovariate(1 / self.exponential)
        assert self.lognormal is not None
        median_s, sigma = self.lognormal
        return min(MAX_HORIZON_S, median_s * luck.lognormvariate(0.0, sigma))


class RunSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run of a task does.

    Attributes:
        duration_s: from its start to its end, of each task one; None: a service that never ends.
        start_s: how long its start takes.
        failure: probability with which a run fails at its end.
        result_bytes: of its result, where it succeeds.
    """

    duration_s: PositiveSeconds | Spread | None = None
    start_s: Seconds = 0.2
    failure: Probability = 0.0
    result_bytes: Annotated[int, msgspec.Meta(ge=0, le=65_536)] = 0


class Submission(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[framework.submission]]`: one task, submitted once or again and again.

    Attributes:
        task: as a `[[task]]` of a task file.
        run: what its runs do.
        at_s: when; may be a list. Used where there is no `per_hour`.
        per_hour: how often.
        arrivals: `even`: one after the other in the same distance; `poisson`: by chance.
        from_s, until_s: between which times; `until_s` 0: until the workload's own.
    """

    task: dict[str, Any]
    run: RunSpec = RunSpec()
    at_s: Seconds | tuple[Seconds, ...] = 0.0
    per_hour: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)] | None = None
    arrivals: Literal["even", "poisson"] = "even"
    from_s: Seconds = 0.0
    until_s: Seconds = 0.0

    def times(self, until_s: float, luck: random.Random) -> list[float]:
        """Return when it is submitted, before `until_s`, in order."""
        if self.per_hour is None:
            times = self.at_s if isinstance(self.at_s, tuple) else (self.at_s,)
            return sorted(at for at in times if at < until_s)
        end = min(until_s, self.until_s or until_s)
        every_s = 3600.0 / self.per_hour
        found: list[float] = []
        at = self.from_s + (luck.expovariate(1 / every_s) if self.arrivals == "poisson" else 0.0)
        while at < end and len(found) <= MAX_TASKS:
            found.append(at)
            at += luck.expovariate(1 / every_s) if self.arrivals == "poisson" else every_s
        return found


class FrameworkSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[framework]]`: its weight and role as in `FrameworkInfo`, the weight as a plain number."""

    name: str
    submission: tuple[Submission, ...]
    weight: Annotated[float, msgspec.Meta(ge=0.001, le=1_000_000)] = 1.0
    role: str = ""


class WorkloadFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """WORKLOAD.toml.

    Attributes:
        until_s: the simulation ends then, or when every task has ended and none is to come.
    """

    framework: tuple[FrameworkSpec, ...]
    until_s: PositiveSeconds = 86_400.0


class Arrival(msgspec.Struct, frozen=True):
    """One submission at one time.

    Attributes:
        key: under which it is submitted; the same in every run of the same files.
        draft: the task, and its blobs.
    """

    at_s: float
    framework: str
    key: str
    draft: Draft
    run: RunSpec


class Scenario(msgspec.Struct, frozen=True):
    """Both files, checked.

    Attributes:
        arrivals: all submissions, in the order of their times.
    """

    cluster: ClusterFile
    workload: WorkloadFile
    arrivals: tuple[Arrival, ...]


def load_scenario(cluster_path: Path, workload_path: Path) -> Scenario:
    """Read both files.

    Raises:
        ConfigError: if a file cannot be read, is not TOML, or a key is wrong, with the key's path.
        SpecError: if a task is wrong, with the key's path.
    """
    raw = _read(cluster_path)
    for group in raw.get("agents", []) if isinstance(raw.get("agents"), list) else []:
        if isinstance(group, dict) and isinstance(group.get("attributes"), dict):
            group["attributes"] = flatten_attributes(group["attributes"])
    cluster = _convert(raw, ClusterFile, cluster_path)
    workload = _convert(_read(workload_path), WorkloadFile, workload_path)
    _check_cluster(cluster, str(cluster_path))
    return Scenario(cluster, workload, _arrivals(cluster.seed, workload, workload_path))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(str(path), f"cannot be read: {why}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), f"not TOML: {error}") from error


def _convert(raw: object, wanted: type[T], path: Path) -> T:
    try:
        return msgspec.convert(raw, wanted)
    except msgspec.ValidationError as error:
        key, problem = explain_validation(error)
        raise ConfigError(f"{path}: {key}" if key else str(path), problem) from error


def _check_cluster(cluster: ClusterFile, where: str) -> None:
    if not cluster.agents:
        raise ConfigError(f"{where}: agents", "expected at least one [[agents]]")
    seen: dict[str, str] = {}
    for index, group in enumerate(cluster.agents):
        here = f"{where}: agents[{index}]"
        try:
            check_name(group.name, "name of a group")
            for executor in group.executors:
                check_name(executor, "executor")
            Resources.parse(group.resources)
            for device in group.devices:
                device.device()
        except (SpecError, ResourceError) as error:
            raise ConfigError(here, str(error)) from error
        if len({device.id for device in group.devices}) != len(group.devices):
            raise ConfigError(f"{here}.devices", "two devices have the same id")
        for name in {group.name, *group.agents()}:
            if seen.setdefault(name, here) != here:
                raise ConfigError(here, f"the name {name!r} is taken by {seen[name]}")
    if len(seen) > MAX_AGENTS + len(cluster.agents):
        raise ConfigError(f"{where}: agents", f"more than {MAX_AGENTS} agents")
    for index, outage in enumerate(cluster.outage):
        unknown = [name for name in outage.agents if name != "*" and name not in seen]
        if unknown or not outage.agents:
            groups = ", ".join(group.name for group in cluster.agents)
            problem = f"no agent or group {unknown[0]!r}" if unknown else "names nobody"
            raise ConfigError(
                f"{where}: outage[{index}].agents", f"{problem}: expected '*', or some of {groups}"
            )


def _arrivals(seed: int, workload: WorkloadFile, path: Path) -> tuple[Arrival, ...]:
    if not workload.framework:
        raise ConfigError(f"{path}: framework", "expected at least one [[framework]]")
    found: list[Arrival] = []
    tasks = 0
    names: set[str] = set()
    for index, framework in enumerate(workload.framework):
        here = f"{path}: framework[{index}]"
        try:
            weight = round(framework.weight * 1000)
            check_framework(
                FrameworkInfo(FrameworkId(framework.name), framework.name, weight, framework.role)
            )
        except SpecError as error:
            raise ConfigError(here, str(error)) from error
        if framework.name in names:
            raise ConfigError(f"{here}.name", f"two frameworks are called {framework.name!r}")
        names.add(framework.name)
        for number, submission in enumerate(framework.submission):
            draft = read_task(submission.task, path.parent, f"{here}.submission[{number}].task")
            luck = random.Random(f"{seed}/arrivals/{framework.name}/{number}")
            for turn, at_s in enumerate(submission.times(workload.until_s, luck)):
                key = f"{framework.name}-{number}-{turn}"
                found.append(Arrival(at_s, framework.name, key, draft, submission.run))
                tasks += draft.spec.instances
                if tasks > MAX_TASKS:
                    raise ConfigError(f"{here}.submission[{number}]", f"more than {MAX_TASKS} tasks in all")
    found.sort(key=lambda arrival: arrival.at_s)
    return tuple(found)
