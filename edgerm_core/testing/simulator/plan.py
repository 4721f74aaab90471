"""What will happen, as plain data: drawn from the seed before anything happens, then carried out."""

from __future__ import annotations

import msgspec

from edgerm_core.tasks import TaskSpec
from edgerm_core.testing.simulator.agent_node import AgentPlan
from edgerm_core.testing.simulator.framework_node import FrameworkPlan
from edgerm_core.testing.simulator.master_node import CrashPoint


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
