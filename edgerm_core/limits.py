"""Every limit, with its unit and the reason for its size.

A limit that an operator may change is a config key whose default is taken from here. Nothing else
in edgerm bounds a queue, a buffer or a retry with a bare number.
"""

from __future__ import annotations

from typing import Final

# --- the wire ---------------------------------------------------------------------------------

MAX_MESSAGE_BYTES: Final = 1 << 20
"""Largest frame either side accepts on a push transport. websockets' default is the same."""

MAX_BATCH_MESSAGES: Final = 4096
"""Messages in one frame; bounds the work one frame can cause."""

MAX_NESTING: Final = 16
"""Depth of CBOR containers; the deepest message of ours has eight."""

BLOB_CHUNK_BYTES: Final = 64 << 10
"""One piece of a blob on a push transport: small enough that a heartbeat behind it is not late on
a 1 Mbit/s link (0.5 s), large enough that 10 MB take 160 exchanges."""

BLOB_WINDOW_CHUNKS: Final = 4
"""Chunks asked for ahead of the one being written, so that a long round trip does not set the speed."""

MAX_BLOB_BYTES: Final = 256 << 20
"""Largest module or file the master takes."""

BLOB_STORE_BYTES: Final = 2 << 30
"""All blobs on the master; the least recently used that no live task needs go first."""

BLOB_CACHE_BYTES: Final = 256 << 20
"""All blobs cached on an agent; the same rule."""

# --- sessions ---------------------------------------------------------------------------------

MAX_CONNECTIONS: Final = 20_000
"""Open connections of one listener; twice the agents the benchmarks use."""

GREETING_TIMEOUT_S: Final = 10.0
"""A connection that has not said who it is by then is closed."""

SESSION_INBOX_FRAMES: Final = 8
"""Frames of one peer waiting to be handled; beyond that its transport is not read (back-pressure)."""

SESSION_OUTBOX_BYTES: Final = 32 << 20
"""Bytes waiting for one slow peer; beyond that it is disconnected, and reconciles when it is back."""

HANDLE_BATCH_EVENTS: Final = 512
"""Events handled before the results are committed and sent; bounds latency under a flood."""

RECONNECT_BASE_S: Final = 0.5
RECONNECT_MAX_S: Final = 60.0
"""Reconnect after random(0, min(max, base * 2**n)): full jitter, as Mesos agents do with 1 s and 1 min."""

# --- gateways ---------------------------------------------------------------------------------

MAX_RELAY_CHANNELS: Final = 4_096
"""Devices that one gateway may stand in for, as the master sees it."""

RELAY_ENVELOPE_BYTES: Final = 32
"""Around a device's frame inside its gateway's."""

RELAY_OUTBOX_BYTES: Final = 1 << 20
"""Beyond this much waiting for a gateway, its devices' sessions wait each for themselves."""

GATEWAY_MAX_DEVICES: Final = 256
"""Devices of one gateway; each costs some 20 KiB of memory."""

MAILBOX_MESSAGES: Final = 256
MAILBOX_BYTES: Final = 256 << 10
"""Orders waiting at a gateway for one device. What does not fit is left out: the master repeats it."""

CUSTODY_BYTES: Final = 8 << 20
"""Status updates that a gateway answers for while the master is away: some 50,000, or 120 large results.
Beyond it devices keep theirs."""

MAX_PASSING_UPDATES: Final = 1_024
"""Status updates of one device on their way through a gateway; it keeps and repeats what is beyond."""

REGISTRATION_WINDOW: Final = 32
"""Devices that a gateway registers, or whose custody it hands over, at the same time after it was cut
off: a thousand devices must not keep the master from everybody else."""

CUSTODY_FRAME_BYTES: Final = 64 << 10
"""Custody is handed over in frames of this size, or one update if that is larger."""

MAX_HEARD_CHANNELS: Final = 1_024
"""Devices named in one heartbeat of a gateway."""

MAX_BLOB_REQUESTS: Final = 8
"""Pieces of blobs that one device may be waiting for at its gateway; twice what an agent asks for."""

MAX_PREFETCHES: Final = 16
"""Blobs that a gateway fetches before its devices ask for them, at the same time."""

UPLINK_BACKLOG_MESSAGES: Final = 4_096
"""Messages waiting for the master beyond which a gateway does not read from its devices."""

# --- heartbeats and leases --------------------------------------------------------------------

HEARTBEAT_S: Final = 10.0
"""Default cadence of an agent on an ordinary link. An idle heartbeat is a dozen bytes."""

HEARTBEAT_CONSTRAINED_S: Final = 60.0
"""Cadence for `link.class = "constrained"`."""

MAX_HEARTBEATS_PER_S: Final = 2_000
"""The master stretches the cadence so that all agents together stay below this (Nomad: 50 per s)."""

LEASE_HEARTBEATS: Final = 3
"""An agent that misses this many heartbeats in a row, and LEASE_GRACE_S, is unreachable."""

LEASE_GRACE_S: Final = 5.0
RECOVERY_GRACE_S: Final = 60.0
"""Extra time for everybody to come back after the master itself was away (Nomad: 300 s)."""

ORDER_RESEND_S: Final = 5.0
"""An order the agent has not confirmed is sent again with the next exchange after this long."""

# --- the master's books -----------------------------------------------------------------------

MAX_AGENTS: Final = 100_000
MAX_FRAMEWORKS: Final = 10_000
MAX_LIVE_TASKS: Final = 500_000
MAX_PENDING_TASKS_PER_FRAMEWORK: Final = 200_000
"""A framework that floods is refused at this point, with a reason; others go on."""

MAX_SUBMIT_TASKS: Final = 10_000
"""Tasks in one submit, instances counted."""

MAX_SPEC_BYTES: Final = 256 << 10
MAX_LAUNCH_BYTES: Final = 2 * MAX_SPEC_BYTES
"""No Launch is larger: a spec, and what was granted. A connection that takes this takes every one."""

MAX_RESULT_BYTES: Final = 64 << 10
"""A result value travels in a status update; larger things belong in a file or a log."""

MAX_MESSAGE_TEXT: Final = 2_000
"""Characters kept of a status message (a trap's backtrace, an engine's error)."""

MAX_STORY_ENTRIES: Final = 64
"""Kept per task: the first few and the most recent ones."""

RETAIN_TERMINAL_TASKS: Final = 20_000
"""Ended tasks kept for `ps`, `story` and late frameworks; oldest go first."""

RETAIN_FRAMEWORK_S: Final = 7 * 86_400.0
"""A disconnected framework without live tasks is forgotten after this (Mesos keeps two weeks of agents)."""

RETAIN_AGENT_S: Final = 14 * 86_400.0
"""An unreachable agent is forgotten after this, and its tasks are GONE."""

MAX_OFFERS_PER_FRAMEWORK: Final = 1_000
OFFER_TIMEOUT_S: Final = 60.0
"""Mesos leaves it unset and its users met hoarded offers; an unanswered offer is rescinded."""

REFUSE_DEFAULT_S: Final = 5.0
REFUSE_MAX_S: Final = 365 * 86_400.0
"""Default and longest life of a decline's filter, as in Mesos."""

QUERY_MAX_ROWS: Final = 10_000
QUERY_DEFAULT_ROWS: Final = 1_000
ANSWER_BYTES: Final = 768 << 10
"""Rows of one answer, so that it fits into a frame; the asker comes again for the rest."""

# --- the agent --------------------------------------------------------------------------------

AGENT_MAX_TASKS: Final = 4_096
AGENT_MAX_UNACKNOWLEDGED: Final = 16_384
"""Status updates kept for an absent master. Beyond it, intermediate states go; final ones stay."""

STATUS_RESEND_BASE_S: Final = 10.0
STATUS_RESEND_MAX_S: Final = 600.0
"""Resend of unacknowledged updates, doubling, as in Mesos."""

LOG_RING_BYTES: Final = 1 << 20
"""Per task and stream, kept on disk."""

LOG_CHUNK_BYTES: Final = 32 << 10
LOG_POLL_S: Final = 0.2
"""How often the log of a followed task is looked at."""

USAGE_EVERY_S: Final = 10.0
"""How often an agent on an ordinary link tells what its tasks use."""

USAGE_TASKS: Final = 32
"""Tasks in one message of usage, so that it fits into the frames of a small connection."""

MAX_LOG_STREAMS: Final = 64
"""Followed at once on one agent."""

PROGRESS_EVERY_S: Final = 2.0
"""At most one line of progress per run and this long reaches the task's story."""

SANDBOX_KEEP_S: Final = 3_600.0
SANDBOX_KEEP_COUNT: Final = 1_000
"""Logs of ended tasks stay readable for an hour, and for the last thousand tasks."""

JOURNAL_SYNC_S: Final = 1.0
"""The agent's journal reaches the flash at most this late: a power cut may cost one second of
records, which the master repeats; a killed process costs nothing."""

JOURNAL_COMPACT_BYTES: Final = 4 << 20

# --- the client -------------------------------------------------------------------------------

REQUEST_TIMEOUT_S: Final = 30.0
