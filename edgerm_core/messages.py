"""Every message that crosses the wire, as a tagged union of arrays.

A message is a CBOR array whose first element is its number; the fields follow in the order written
here. Fields at the end that have their default value are left out, and a reader ignores elements it
does not know, so a message grows by appending fields that have defaults. Numbers are never reused.
`protocol.cddl` beside this file says the same for other languages, and a test holds the two together.

Who speaks to whom:

    agent     -> master   Register Heartbeat Inventory StatusUpdate Usage LogData BlobGet
    master    -> agent    Registered HeartbeatAck Launch Kill Acknowledge LogGet BlobData
    gateway   -> master   RelayOpen Relayed RelayClose
    master    -> gateway  Relayed RelayClose
    framework -> master   Subscribe Submit KillTasks Reconcile TaskAcknowledge Accept Decline Revive
                          Suppress Unsubscribe LogGet BlobOffer BlobData BlobGet
    master    -> framework Subscribed Submitted TaskUpdate Reconciled Offers Rescind LogData BlobState
    operator  -> master   Greet Query Drain Forget KillTasks LogGet
    master    -> operator Greeted Answer LogData
    master    -> anyone   Done Failed Refused

The first message of a session is Register, Subscribe or Greet: it says who the peer is and which
protocol versions it speaks. The answer names the version both use from then on.

Requests carry `request_id`, chosen by the requester and unique within its session; the answer
repeats it. Everything that matters beyond a session (submits, status updates, orders) can be sent
again without harm: submits carry a key, updates a number, orders an attempt.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final

import msgspec

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.attributes import Attributes
from edgerm_core.errors import SpecError
from edgerm_core.frameworks import FrameworkInfo
from edgerm_core.ids import AgentId, BlobId, FrameworkId, OfferId, TaskId
from edgerm_core.offers import Offer
from edgerm_core.resources import Device, Resources
from edgerm_core.tasks import File, Implementation, RestartPolicy, TaskSpec, TaskState, Volume
from edgerm_core.values import (
    MAX_INTEGER,
    NOT_PLAIN,
    Count,
    Integer,
    Ordinal,
    Seconds,
    UnixSeconds,
    Word,
    is_plain,
)

PROTOCOL_VERSION: Final = 1
"""The newest version this code speaks."""

OLDEST_PROTOCOL_VERSION: Final = 1


TaskNumber = Annotated[TaskId, msgspec.Meta(ge=1, le=MAX_INTEGER)]
OfferNumber = Annotated[OfferId, msgspec.Meta(ge=1, le=MAX_INTEGER)]
Sha256 = Annotated[BlobId, msgspec.Meta(min_length=32, max_length=32)]
Versions = tuple[Count, Count]
"""What the fields below share, with the ranges that msgspec checks while it decodes."""


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all messages."""


class RefusalCode(enum.StrEnum):
    """Why a peer or a request was refused. Later versions may add codes."""

    MALFORMED = "malformed"
    VERSION = "version"
    UNEXPECTED = "unexpected"
    UNAUTHENTICATED = "unauthenticated"
    DUPLICATE_AGENT = "duplicate-agent"
    SESSION_REPLACED = "session-replaced"
    REMOVED = "removed"
    LIMIT = "limit"
    SPEC = "spec"
    NOT_FOUND = "not-found"
    OFFER_INVALID = "offer-invalid"
    AGENT_AWAY = "agent-away"
    SLOW = "slow"
    SHUTDOWN = "shutdown"
    INTERNAL = "internal"
    NO_MASTER = "no-master"


# --- agent and master -------------------------------------------------------------------------


class TaskReport(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an agent runs, in its registration: everything it has not had acknowledged as ended.

    `last_seq` is the last number it gave to a status update of this attempt. One below the master's
    means that the agent lost its latest records in a power cut and will use numbers again.
    """

    task_id: TaskNumber
    attempt: Count
    state: TaskState
    restarts: Count = 0
    last_seq: Count | None = None


class Auth(msgspec.Struct, frozen=True, array_like=True):
    """Room for authentication. `scheme` names it; `data` is the scheme's own. Empty: none."""

    scheme: Word = ""
    data: bytes = b""


class Register(Message, frozen=True, tag=1):
    """An agent says who it is, what it has and what it runs.

    Attributes:
        versions: oldest and newest protocol version it speaks.
        info: identity, totals, attributes, devices, executors.
        boot_id: changes with every start of the machine: a new one means nothing survived that
            needs a living machine.
        incarnation: changes with every start of the agent process; two live sessions with one id
            but different incarnations are two agents with a duplicate id.
        tasks: everything it runs or still has to report on.
        max_message_bytes: largest frame it can take; 0: the transport's limit.
        auth: proof of identity.
    """

    versions: Versions
    info: AgentInfo
    boot_id: Word
    incarnation: Word
    tasks: tuple[TaskReport, ...] = ()
    max_message_bytes: Count = 0
    auth: Auth = Auth()


class Registered(Message, frozen=True, tag=2):
    """The master took the agent in.

    Attributes:
        version: protocol version for this session.
        heartbeat_s: send the next heartbeat after this long without having sent anything.
        lease_s: after this long without a word from the agent it is unreachable.
        master_id: identity of the master's records; a new one means other books.
        away_s: from a gateway: for how long it has not reached its master; 0: it reaches it.
    """

    version: Count
    heartbeat_s: Seconds
    lease_s: Seconds
    master_id: Word = ""
    away_s: Seconds = 0.0


class Heartbeat(Message, frozen=True, tag=3):
    """The agent lives. Everything else it has to say travels beside it in the batch.

    Frameworks and operators send it too where the master cannot push: it asks for what waits.

    `heard`, from a gateway: channels whose devices it has heard since it last said so, and of which
    nothing was relayed. One number instead of one heartbeat each.
    """

    heard: tuple[Count, ...] = ()


class HeartbeatAck(Message, frozen=True, tag=4):
    """The master heard it. Fields as in Registered; a cadence of 0 means unchanged."""

    heartbeat_s: Seconds = 0.0
    lease_s: Seconds = 0.0
    away_s: Seconds = 0.0


class Inventory(Message, frozen=True, tag=5):
    """Something an agent has is different now. None: unchanged."""

    totals: Resources | None = None
    attributes: Attributes | None = None
    devices: tuple[Device, ...] | None = None
    executors: tuple[Fingerprint, ...] | None = None


class StatusUpdate(Message, frozen=True, tag=6):
    """What happened to a task. Sent again until acknowledged.

    Attributes:
        task_id, attempt: which run.
        seq: 1, 2, 3 … within the attempt. The master takes them in order and acknowledges also what
            it already had.
        state, reason, message: what and why.
        restarts: restarts in place so far.
        exit_code, signal, result: how it ended.
        at: when, Unix seconds by the agent's clock; only for people.
    """

    task_id: TaskNumber
    attempt: Count
    seq: Ordinal
    state: TaskState
    reason: str = ""
    message: str = ""
    restarts: Count = 0
    exit_code: Integer | None = None
    signal: Count | None = None
    result: bytes | None = None
    at: UnixSeconds = 0.0


class Acknowledge(Message, frozen=True, tag=7):
    """Updates of this attempt up to and including `seq` are on the master's disk."""

    task_id: TaskNumber
    attempt: Count
    seq: Count


class Launch(Message, frozen=True, tag=8):
    """Run this. Repeated until the agent reports the attempt; a repeated one changes nothing.

    Attributes:
        task_id, attempt: which run. A smaller attempt than one already seen is ignored.
        framework_id, name, index: for the environment and for people.
        implementation: the chosen one.
        resources: what the task was granted, concretely.
        env, files, volumes, restart, stop_after_s, time_limit_s, kill_grace_s: from the spec.
    """

    task_id: TaskNumber
    attempt: Count
    framework_id: FrameworkId
    name: str
    implementation: Implementation
    resources: Resources = Resources()
    env: dict[str, str] = {}
    files: tuple[File, ...] = ()
    volumes: tuple[Volume, ...] = ()
    restart: RestartPolicy = RestartPolicy()
    stop_after_s: Seconds | None = None
    time_limit_s: Seconds | None = None
    kill_grace_s: Seconds = 5.0
    index: Count = 0


class Kill(Message, frozen=True, tag=9):
    """Stop this attempt and any older one. Repeated until the agent reports an end.

    `reason` becomes the reason of the KILLED status. An agent that knows nothing of the task answers
    with a StatusUpdate KILLED, seq 1.
    """

    task_id: TaskNumber
    attempt: Count
    grace_s: Seconds = 5.0
    reason: str = ""


# --- blobs ------------------------------------------------------------------------------------


class BlobGet(Message, frozen=True, tag=10):
    """Send a piece of a blob. Answered by BlobData, or by Failed with `not-found`."""

    request_id: Count
    blob: Sha256
    offset: Count
    length: Count


class BlobData(Message, frozen=True, tag=11):
    """A piece of a blob, as an answer to BlobGet or as an upload after BlobState."""

    request_id: Count
    blob: Sha256
    offset: Count
    size: Count
    data: bytes


class BlobOffer(Message, frozen=True, tag=12):
    """A framework has this blob. Answered by BlobState."""

    request_id: Count
    blob: Sha256
    size: Count


class BlobState(Message, frozen=True, tag=13):
    """How much of the blob the master has. `have == size`: all of it, checked; send nothing."""

    request_id: Count
    blob: Sha256
    have: Count
    size: Count


# --- logs -------------------------------------------------------------------------------------


class LogStream(enum.IntEnum):
    """Which of a task's outputs."""

    STDOUT = 1
    STDERR = 2


class LogGet(Message, frozen=True, tag=14):
    """Read a task's log. The master passes it on to the agent, with a request id of its own.

    Attributes:
        offset: first byte wanted, counted from the start of the task's output; what the ring has
            already dropped is skipped. Negative: that many bytes before the current end.
        follow: keep sending as the log grows, until the task ends or `cancel`.
        cancel: stop the stream that `request_id` started; `task_id` may then be 0.
        attempt: which attempt; 0: the latest.
    """

    request_id: Count
    task_id: Annotated[TaskId, msgspec.Meta(ge=0, le=MAX_INTEGER)]
    stream: LogStream
    offset: Integer = 0
    follow: bool = False
    cancel: bool = False
    attempt: Count = 0


class LogData(Message, frozen=True, tag=15):
    """A piece of a log. `offset` is where it starts; a jump means the ring dropped what lay between.

    `end`: nothing will follow. `problem`: why there is nothing (the last piece then).
    """

    request_id: Count
    offset: Count
    data: bytes = b""
    end: bool = False
    problem: str = ""


# --- usage ------------------------------------------------------------------------------------


class TaskUsage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one attempt uses, summed over its restarts as far as the executor knows. None: not known.

    Attributes:
        cpu_ms: processor time so far.
        mem_kib, mem_peak_kib: memory now, and the most so far.
        net_rx_bytes, net_tx_bytes: received and sent so far.
    """

    task_id: TaskNumber
    attempt: Count
    cpu_ms: Count | None = None
    mem_kib: Count | None = None
    mem_peak_kib: Count | None = None
    net_rx_bytes: Count | None = None
    net_tx_bytes: Count | None = None


class Usage(Message, frozen=True, tag=16):
    """What tasks use now: those whose figures have changed since the agent last told. Only for people:
    neither acknowledged nor written down, and lost without harm."""

    tasks: tuple[TaskUsage, ...]


# --- gateway and master -----------------------------------------------------------------------


class RelayOpen(Message, frozen=True, tag=17):
    """A gateway opens a channel for a device: a session of the device's own inside the gateway's.

    It ends with the gateway's session. What is relayed on it is what the device would say and be told
    if it had dialled the master, beginning with Register.

    Attributes:
        channel: chosen by the gateway, not used before in its session.
        peer: where the device is, for people.
        max_message_bytes: largest frame the device takes; 0: the gateway's limit.
        age_s: how long ago the device registered with the gateway. Of two gateways that both speak for
            a device, the one with which it registered last does.
        custody_of: set where the device is not here any more: the channel carries nothing but status
            updates of this agent that the gateway has acknowledged to it, and their acknowledgements.
    """

    channel: Count
    peer: Word = ""
    max_message_bytes: Count = 0
    age_s: Seconds = 0.0
    custody_of: Word = ""


class Relayed(Message, frozen=True, tag=18):
    """A frame of a device's session. As bytes, so that what is wrong in it ends that session alone."""

    channel: Count
    data: bytes


class RelayClose(Message, frozen=True, tag=19):
    """The channel is closed, by either side. One that is not open is ignored."""

    channel: Count
    reason: str = ""


# --- framework and master ---------------------------------------------------------------------


class Subscribe(Message, frozen=True, tag=20):
    """A framework says who it is. A newer session with the same id replaces the older one."""

    versions: Versions
    info: FrameworkInfo
    auth: Auth = Auth()


class Subscribed(Message, frozen=True, tag=21):
    """The master took the framework in. `known`: it had been here before, its tasks live on."""

    version: Count
    known: bool
    master_id: Word = ""


class Submit(Message, frozen=True, tag=22):
    """Run these. All or none, answered by Submitted, or by Failed naming the wrong spec.

    Attributes:
        keys: one per spec, unique within the framework: a key that is already known is not
            submitted again but answered with the task it made then.
        specs: what to run.
    """

    request_id: Count
    keys: tuple[str, ...]
    specs: tuple[TaskSpec, ...]


class Submitted(Message, frozen=True, tag=23):
    """The tasks are on the master's disk. One tuple per spec, `instances` ids in each."""

    request_id: Count
    task_ids: tuple[tuple[TaskNumber, ...], ...]


class KillTasks(Message, frozen=True, tag=24):
    """End these tasks. Answered by Done or Failed; killing an ended task changes nothing.

    `grace_s` overrides the spec's where it is given.
    """

    request_id: Count
    task_ids: tuple[TaskNumber, ...]
    grace_s: Seconds | None = None


class TaskUpdate(Message, frozen=True, tag=25):
    """Where a task stands now. `version` grows with every change; older ones may be ignored."""

    task_id: TaskNumber
    version: Count
    state: TaskState
    reason: str = ""
    message: str = ""
    agent_id: Word = ""
    attempt: Count = 0
    restarts: Count = 0
    exit_code: Integer | None = None
    signal: Count | None = None
    result: bytes | None = None
    agent_name: str = ""


class TaskAcknowledge(Message, frozen=True, tag=26):
    """The framework has seen these ends: the master may forget them when it needs room."""

    task_ids: tuple[TaskNumber, ...]


class Reconcile(Message, frozen=True, tag=27):
    """Tell me where these tasks stand; none named: all of mine that have not ended.

    Answered by one TaskUpdate each, then Reconciled. A task the master does not know is listed there.
    """

    request_id: Count
    task_ids: tuple[TaskNumber, ...] = ()


class Reconciled(Message, frozen=True, tag=28):
    """All that Reconcile asked for has been sent. `unknown`: task ids the master has no record of."""

    request_id: Count
    unknown: tuple[TaskNumber, ...] = ()


class Offers(Message, frozen=True, tag=29):
    """Resources held for the framework until it answers or they expire."""

    offers: tuple[Offer, ...]


class Accept(Message, frozen=True, tag=30):
    """Launch these tasks on the offers, which must be of one agent. Answered by Submitted or Failed.

    What the tasks leave is given back under a filter of `refuse_s`. The offers are used up either
    way; resources of a failed accept return at once.
    """

    request_id: Count
    offer_ids: tuple[OfferNumber, ...]
    keys: tuple[str, ...]
    specs: tuple[TaskSpec, ...]
    refuse_s: Seconds = 5.0


class Decline(Message, frozen=True, tag=31):
    """Give these offers back; do not offer the same or less of that agent for `refuse_s`."""

    offer_ids: tuple[OfferNumber, ...]
    refuse_s: Seconds = 5.0


class Revive(Message, frozen=True, tag=32):
    """Forget my filters and make offers again."""


class Suppress(Message, frozen=True, tag=33):
    """Make no offers until Revive."""


class Rescind(Message, frozen=True, tag=34):
    """These offers are void."""

    offer_ids: tuple[OfferNumber, ...]


class Unsubscribe(Message, frozen=True, tag=35):
    """Tear the framework down: its tasks are killed, its record goes when they have ended."""

    request_id: Count


# --- operator and master ----------------------------------------------------------------------


class Greet(Message, frozen=True, tag=40):
    """An operator's tool says who it is. Answered by Greeted."""

    versions: Versions
    auth: Auth = Auth()


class Greeted(Message, frozen=True, tag=41):
    """The master took the operator in."""

    version: Count
    master_id: Word = ""


class Query(Message, frozen=True, tag=42):
    """Ask for a listing or an explanation. Answered by Answer.

    `kind` is one of `cluster`, `agents`, `frameworks`, `tasks`, `explain`, `story`; `args` narrows
    it down, see `master/queries.py`.
    """

    request_id: Count
    kind: Word
    args: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not is_plain(self.args):
            raise SpecError(f"query {self.kind}: {NOT_PLAIN}")


class Answer(Message, frozen=True, tag=43):
    """Rows of a listing, as many as fit into a message. `total` counts all that match."""

    request_id: Count
    rows: tuple[dict[str, Any], ...]
    total: Count = 0


class Drain(Message, frozen=True, tag=44):
    """Give the agent no new tasks and move its tasks away, or with `undo` let it work again."""

    request_id: Count
    agent_id: AgentId
    undo: bool = False


class Forget(Message, frozen=True, tag=45):
    """The operator declares an agent gone for good: its tasks are lost now, whatever their policy."""

    request_id: Count
    agent_id: AgentId


# --- anyone -----------------------------------------------------------------------------------


class Done(Message, frozen=True, tag=50):
    """The request was carried out."""

    request_id: Count


class Failed(Message, frozen=True, tag=51):
    """The request was not carried out, and why."""

    request_id: Count
    code: Word
    message: str


class Refused(Message, frozen=True, tag=52):
    """The session is over, and why. Retrying unchanged helps only for the codes that say so."""

    code: Word
    message: str


AnyMessage = (
    Register
    | Registered
    | Heartbeat
    | HeartbeatAck
    | Inventory
    | StatusUpdate
    | Acknowledge
    | Launch
    | Kill
    | BlobGet
    | BlobData
    | BlobOffer
    | BlobState
    | LogGet
    | LogData
    | Usage
    | RelayOpen
    | Relayed
    | RelayClose
    | Subscribe
    | Subscribed
    | Submit
    | Submitted
    | KillTasks
    | TaskUpdate
    | TaskAcknowledge
    | Reconcile
    | Reconciled
    | Offers
    | Accept
    | Decline
    | Revive
    | Suppress
    | Rescind
    | Unsubscribe
    | Greet
    | Greeted
    | Query
    | Answer
    | Drain
    | Forget
    | Done
    | Failed
    | Refused
)

RETRYABLE_REFUSALS: Final = frozenset(
    {
        RefusalCode.DUPLICATE_AGENT,
        RefusalCode.SLOW,
        RefusalCode.SHUTDOWN,
        RefusalCode.INTERNAL,
        RefusalCode.LIMIT,
        RefusalCode.NO_MASTER,
    }
)
"""Refusals after which coming back later, unchanged, makes sense."""


def negotiate(versions: tuple[int, int]) -> int | None:
    """Return the newest protocol version both sides speak, or None."""
    newest = min(versions[1], PROTOCOL_VERSION)
    return newest if newest >= max(versions[0], OLDEST_PROTOCOL_VERSION) else None
