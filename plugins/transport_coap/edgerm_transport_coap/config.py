"""`[transport.coap]`: the plugin's config section, and the limits that are not the operator's."""

from __future__ import annotations

from typing import Final

import msgspec

from edgerm_core import limits

# --- RFC 7252 ---------------------------------------------------------------------------------

ACK_TIMEOUT_S: Final = 2.0
ACK_RANDOM_FACTOR: Final = 1.5
MAX_RETRANSMIT: Final = 4
"""RFC 7252, section 4.8."""

EXCHANGE_LIFETIME_S: Final = 247.0
"""RFC 7252, section 4.8.2: how long a repeated opening is answered with the same session."""

MAX_DATAGRAM_BYTES: Final = 2048
"""Received at most; a CoAP message that avoids fragmentation has 1152 (RFC 7252, section 4.6)."""

MAX_OPTIONS: Final = 32
"""In one message; a request of ours has seven at most."""

MAX_NUMBER_DIGITS: Final = 10
"""Of an exchange's number, and of what an opening says."""

AMPLIFICATION: Final = 3
"""Answer bytes for each byte from an address that nobody has proven yet (RFC 7252, section 11.3)."""

# --- sessions ---------------------------------------------------------------------------------

DEFAULT_FRAME_BYTES: Final = 1024
"""What a device takes that does not say `m`."""

MIN_FRAME_BYTES: Final = 64
MAX_FRAME_BYTES: Final = 64 << 10
"""Bounds of `m`."""

DEFAULT_BLOCK_BYTES: Final = 1024
"""Payload of one datagram unless the peer asks for less; the largest block of RFC 7959."""

MAX_ROUND_TRIP_S: Final = 86_400.0
"""Bound of `t`."""

ROUND_TRIP_MARGIN: Final = 1.5
"""What is sent to a device is repeated after this times `t`, never sooner than ACK_TIMEOUT_S."""

ANSWER_WAIT_S: Final = 0.1
"""How long an exchange may wait for what the master says to its frame. Then, or if the frame could not
be taken yet, a confirmable request gets its acknowledgement (RFC 7252, section 5.2.2)."""

BLOB_ANSWER_WAIT_S: Final = 1.0
"""The same for a block of a blob, which is sure to come: half of the time after which a peer asks again.
An answer in the acknowledgement saves two datagrams, and clients that cannot take blocks any other way
(libcoap 4.3.1 among them) are served on a busy machine too."""

SESSION_TIMEOUT_S: Final = 300.0
SESSION_TIMEOUT_ROUND_TRIPS: Final = 5
"""A session that has been silent for the longer of both is forgotten."""

LOOK_S: Final = 0.5
"""Between two looks at who has been silent for too long; one at 100,000 sessions takes some 10 ms."""

INBOX_FRAMES: Final = 2
"""Frames of one peer waiting to be received; beyond that its exchange is not answered."""

STUCK_INBOX_FRAMES: Final = 8
"""As many while the master cannot get rid of what it has for this peer."""

ENDED_SESSIONS: Final = 1024
"""Ended sessions whose last frame and reason are still kept for the peer to ask for; oldest go first."""

RECENT_OPENINGS: Final = 16_384
"""Openings remembered so that a repeated one gets the same session; oldest go first. As many as a site has
devices that all come back at once: a second session for a device ends its first one."""

BLOCK_TRANSFERS: Final = 256
"""Openings in several blocks under way at once; oldest go first."""

REASON_BYTES: Final = 200
"""Longest reason that is sent with the end of a session, or taken from a peer."""

RETRY_LATER_S: Final = 10
"""Max-Age of an answer 5.03."""

# --- blobs ------------------------------------------------------------------------------------

BLOB_READ_AHEAD_BYTES: Final = 16 << 10
"""Asked of the master for one block, so that the next blocks are there already."""

BLOB_REQUESTS: Final = 4
"""Blocks that one session may have under way; more are answered 5.03."""

BLOB_WINDOWS: Final = 256
"""Pieces of blobs kept for the next blocks of as many sessions; the least recently used go first."""

KNOWN_BLOBS: Final = 16
"""Blobs that a session may name by the first 8 characters; oldest go first."""

# --- the socket -------------------------------------------------------------------------------

READ_BATCH: Final = 64
"""Datagrams read before others get their turn."""

RECEIVE_BUFFER_BYTES: Final = 4 << 20
"""Asked of the kernel, which may give less: a site's devices all come back at once."""

STREAM_WRITE_BYTES: Final = 256 << 10
"""Waiting for one TCP peer that does not read; beyond that its requests are not read."""

STREAM_OVERHEAD_BYTES: Final = 128
"""Of a message in a stream around its payload, at most: code, token, length and our options take 70."""

MIN_STREAM_MESSAGE_BYTES: Final = 192
"""A peer that takes less in a message cannot be talked to."""

STRANGERS: Final = 2048
"""TCP or WebSocket connections that no session lives on; the oldest is cut when there is another one. More
than LISTEN_BACKLOG: so many may be accepted before the first of them is heard."""

STRANGER_S: Final = 10.0
"""How long each of them may last, from the first byte of its handshake on."""

# --- dialing ----------------------------------------------------------------------------------

CLOSE_TIMEOUT_S: Final = 1.5
"""For what waits to be sent, and again half of it for the goodbye."""

SILENCE_S: Final = 93.0
"""A master that has not answered for this long is gone: MAX_TRANSMIT_WAIT of RFC 7252, section 4.8.2."""

ASK_AGAIN_S: Final = (0.1, 0.4, 1.6, 6.4)
"""Without a bell: pauses before asking for the answer to a frame that had none yet."""

NON_FRAME_BYTES: Final = 8
"""A frame up to this size says little more than that its sender lives, and goes as non-confirmable."""


class CoapConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[transport.coap]`.

    Attributes:
        max_message_bytes: largest frame sent or taken; 64 to 65536.
        max_sessions: of one listener; more are answered with 5.03.
        block_bytes: dialing: largest payload of a datagram, a power of two from 16 to 1024.
        round_trip_s: dialing: how long a datagram may take there and back because this machine sleeps;
            the master waits 1.5 times as long before it repeats what it sent. 0: not given.
        ack_timeout_s: dialing: an unanswered request is first repeated after this to 1.5 times this.
        open_timeout_s: dialing: the master must answer within this.
        silence_s: dialing: a master that has not answered for this long is gone.
        observe: dialing: let the master ring when something waits. Without it, what the master has to
            say waits for the next message of this side.
        keepalive_s: dialing, with `observe`: ask after this long without an exchange, so that NATs keep
            the way back open; 0: never.
    """

    max_message_bytes: int = MAX_FRAME_BYTES
    max_sessions: int = limits.MAX_CONNECTIONS
    block_bytes: int = DEFAULT_BLOCK_BYTES
    round_trip_s: float = 0.0
    ack_timeout_s: float = ACK_TIMEOUT_S
    open_timeout_s: float = 9.0
    silence_s: float = SILENCE_S
    observe: bool = True
    keepalive_s: float = 25.0

    def __post_init__(self) -> None:
        if not MIN_FRAME_BYTES <= self.max_message_bytes <= MAX_FRAME_BYTES:
            raise ValueError(f"max_message_bytes must be {MIN_FRAME_BYTES} to {MAX_FRAME_BYTES}")
        if not 1 <= self.max_sessions <= 1_000_000:
            raise ValueError("max_sessions must be 1 to 1000000")
        if self.block_bytes not in (16, 32, 64, 128, 256, 512, 1024):
            raise ValueError("block_bytes must be a power of two from 16 to 1024")
        if not 0 <= self.round_trip_s <= MAX_ROUND_TRIP_S:
            raise ValueError("round_trip_s must be 0 (not given) to 86400 seconds")
        if not 0 <= self.keepalive_s <= 86_400:
            raise ValueError("keepalive_s must be 0 (never) to 86400 seconds")
        for key in ("ack_timeout_s", "open_timeout_s", "silence_s"):
            if not 0.005 <= getattr(self, key) <= 86_400:
                raise ValueError(f"{key} must be 0.005 to 86400 seconds")
