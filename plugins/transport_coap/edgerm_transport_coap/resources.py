"""The resources of a listener, and the sessions behind them: which request means what.

Everything that carries requests, datagrams and streams, hands them in here.
"""

from __future__ import annotations

import asyncio
import collections
import secrets
from collections.abc import Callable
from typing import Final

from edgerm_transport_coap.blobs import Windows
from edgerm_transport_coap.blocks import Assembly, Block, Incomplete, TooLarge
from edgerm_transport_coap.config import (
    ANSWER_WAIT_S,
    BLOB_ANSWER_WAIT_S,
    BLOCK_TRANSFERS,
    DEFAULT_FRAME_BYTES,
    ENDED_SESSIONS,
    MAX_FRAME_BYTES,
    MAX_NUMBER_DIGITS,
    MAX_ROUND_TRIP_S,
    MIN_FRAME_BYTES,
    REASON_BYTES,
    RETRY_LATER_S,
    CoapConfig,
)
from edgerm_transport_coap.message import (
    BAD_OPTION,
    BAD_REQUEST,
    BLOCK1,
    CONTENT,
    CONTENT_FORMAT,
    CONTINUE,
    DELETE,
    DELETED,
    GET,
    INCOMPLETE,
    MAX_AGE,
    METHOD_NOT_ALLOWED,
    NON,
    NOT_ACCEPTABLE,
    NOT_FOUND,
    OBSERVE,
    POST,
    SIZE1,
    TOO_LARGE,
    UNAVAILABLE,
    UNSUPPORTED_FORMAT,
    Exchange,
    Malformed,
    parse_block,
    parse_uint,
    uint,
)
from edgerm_transport_coap.options import Refusal, Target, parse_target
from edgerm_transport_coap.request import Recent, Request, Waiting
from edgerm_transport_coap.session import Session
from edgerm_transport_coap.silence import Silence

LINKS: Final = b"</e>;ct=63,</b>;ct=42"
"""RFC 6690."""

LINK_FORMAT: Final = 40
CBOR_SEQUENCE: Final = 63
OCTETS: Final = 42

REGISTER: Final = 0
DEREGISTER: Final = 1
"""Values of Observe in a request (RFC 7641, section 2)."""

NAME_CHARACTERS: Final = 8

_NAME: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


class Resources:
    """All that a listener answers.

    Parameters:
        config: the listener's.
        on_session: given each new session.
    """

    def __init__(self, config: CoapConfig, on_session: Callable[[Session], None]) -> None:
        self._config = config
        self._on_session = on_session
        self._loop = asyncio.get_running_loop()
        self.sessions: dict[bytes, Session] = {}
        #: Those that had done nothing but open when this was last looked at, oldest first.
        self._unproven: dict[bytes, Session] = {}
        self._ended: collections.OrderedDict[bytes, Session] = collections.OrderedDict()
        self._silence = Silence(self.sessions.values, self._on_silent)
        self._recent = Recent()
        self._waiting = Waiting(ANSWER_WAIT_S)
        self._waiting_for_blobs = Waiting(BLOB_ANSWER_WAIT_S)
        self._windows = Windows()
        #: Openings that come in blocks, by address.
        self._assemblies: collections.OrderedDict[object, Assembly] = collections.OrderedDict()

    def close(self, reason: str) -> None:
        """End all sessions."""
        for session in list(self.sessions.values()):
            session.end(reason)
        self._silence.close()
        self._waiting.close()
        self._waiting_for_blobs.close()

    def forget(self, session: Session) -> None:
        """The session has ended here; keep what its device has not fetched yet. Idempotent."""
        self._unproven.pop(session.name, None)
        if self.sessions.pop(session.name, None) is not None:
            session.leave()
            self._ended[session.name] = session
            if len(self._ended) > ENDED_SESSIONS:
                self._ended.popitem(last=False)

    # --- requests -----------------------------------------------------------------------------

    def handle(self, request: Request) -> None:
        """Answer the request, now or later."""
        message = request.message
        waiting = self._waiting
        try:
            if isinstance(message, Exchange):
                self._on_exchange(request, message.session, message.number)
            else:
                target = parse_target(message.options, bert=request.bert)
                if target.path[:1] == [b"b"]:
                    waiting = self._waiting_for_blobs
                self._route(request, target)
        except Refusal as refusal:
            if message.kind == NON and refusal.code == BAD_OPTION:
                request.reject()  # RFC 7252, section 5.4.1.
            else:
                request.respond(refusal.code)
        except Malformed:
            request.respond(BAD_REQUEST)
        if not request.answered:
            waiting.add(request)

    def _route(self, request: Request, target: Target) -> None:
        path, accept, content_format = target.path, target.accept, target.content_format
        if path and path[0] == b"e" and len(path) <= 2:
            if accept is not None and accept != CBOR_SEQUENCE:
                request.respond(NOT_ACCEPTABLE)
            elif content_format not in (None, CBOR_SEQUENCE) and request.message.payload:
                request.respond(UNSUPPORTED_FORMAT)
            elif len(path) == 1:
                self._on_entrance(request, target.query)
            else:
                self._on_session_request(request, path[1], target.query)
        elif path and path[0] == b"b" and len(path) == 3:
            self._on_blob(request, path[1], path[2], accept)
        elif path == [b".well-known", b"core"]:
            self._on_links(request, accept)
        else:
            request.respond(NOT_FOUND)

    def _on_links(self, request: Request, accept: int | None) -> None:
        if request.message.code != GET:
            request.respond(METHOD_NOT_ALLOWED)
        elif accept is not None and accept != LINK_FORMAT:
            request.respond(NOT_ACCEPTABLE)
        else:
            request.respond(CONTENT, [(CONTENT_FORMAT, uint(LINK_FORMAT))], LINKS)

    def _on_blob(self, request: Request, session_name: bytes, name: bytes, accept: int | None) -> None:
        if request.message.code != GET:
            request.respond(METHOD_NOT_ALLOWED)
        elif accept is not None and accept != OCTETS:
            request.respond(NOT_ACCEPTABLE)
        elif (session := self._find(request, session_name)) is not None:
            session.read_blob(request, name.decode("ascii", "replace"), Block.of(request))

    def _on_session_request(self, request: Request, name: bytes, query: list[bytes]) -> None:
        code = request.message.code
        if code == POST:
            self._on_exchange(request, name, _number(query))
        elif code == GET:
            session = self._find(request, name)
            if session is not None:
                option = request.message.option(OBSERVE)
                observe = None if option is None else parse_uint(option)
                if observe == REGISTER:
                    session.observe(request)
                else:
                    session.tell_waiting(request, deregister=observe == DEREGISTER)
        elif code == DELETE:
            self._on_delete(request, name)
        else:
            request.respond(METHOD_NOT_ALLOWED)

    def _on_exchange(self, request: Request, name: bytes, number: int) -> None:
        session = self._find(request, name)
        if session is None:
            return
        if session.has_whole(number):
            if _has_more(request):
                request.respond(CONTINUE, [(BLOCK1, request.message.option(BLOCK1) or b"")])
            else:
                session.exchange(request, number, None, Block.of(request))
            return
        frame: bytes | None = request.message.payload
        if (block1 := request.message.option(BLOCK1)) is not None:
            frame = self._assembled(request, block1, session.assembly, number)
        if frame is None:
            return
        if len(frame) > self._config.max_message_bytes:
            session.refuse_too_large(request)
        else:
            session.exchange(request, number, frame or request.message.frame, Block.of(request))

    def _on_delete(self, request: Request, name: bytes) -> None:
        session = self.sessions.get(_checked(name))
        if session is not None:
            # A peer's words go into logs: one line, and nothing that a terminal would obey.
            words = request.message.payload[:REASON_BYTES].decode(errors="replace")
            reason = "".join(c if c.isprintable() else "?" for c in words)
            session.end(f"{session.peer} closed the session{f': {reason}' if reason else ''}", here=False)
            self.forget(session)
        request.respond(DELETED)

    def _find(self, request: Request, name: bytes) -> Session | None:
        """Return the session of that name, or answer 4.04."""
        session = self.sessions.get(name) or self._ended.get(name)
        if session is None:
            _checked(name)
            request.respond(NOT_FOUND, [], b"no such session")
        return session

    def _assembled(self, request: Request, option: bytes, assembly: Assembly, of: object) -> bytes | None:
        """Return the frame that the request's block completes, or answer what is missing."""
        try:
            frame = assembly.add(of, option, request.message.payload)
        except Incomplete:
            request.respond(INCOMPLETE, [(BLOCK1, option)])
            return None
        except TooLarge:
            return bytes(self._config.max_message_bytes + 1)
        if frame is None:
            request.respond(CONTINUE, [(BLOCK1, option)])
        return frame

    # --- opening ------------------------------------------------------------------------------

    def _on_entrance(self, request: Request, query: list[bytes]) -> None:
        if request.message.code != POST:
            request.respond(METHOD_NOT_ALLOWED)
            return
        identity = request.identity
        now = self._loop.time()
        if identity is not None:
            before = self._recent.get(identity, now)
            if isinstance(before, Session):
                before.repeat_opening(request)
                return
        max_bytes, round_trip_s = _terms(query)
        frame = self._opening_frame(request)
        if frame is None:
            return
        if len(frame) > self._config.max_message_bytes:
            request.respond(TOO_LARGE, [(SIZE1, uint(self._config.max_message_bytes))])
            return
        if len(self.sessions) >= self._config.max_sessions and not self._make_room():
            request.respond(UNAVAILABLE, [(MAX_AGE, uint(RETRY_LATER_S))])
            return
        session = Session(
            self._new_name(),
            request,
            max_message_bytes=min(max_bytes, self._config.max_message_bytes),
            max_received_bytes=self._config.max_message_bytes,
            round_trip_s=round_trip_s,
            windows=self._windows,
        )
        self.sessions[session.name] = self._unproven[session.name] = session
        if identity is not None:
            self._recent.add(identity, session, now)
        self._silence.expect(session.timeout_s)
        session.open(request, frame or request.message.frame)
        self._on_session(session)

    def _opening_frame(self, request: Request) -> bytes | None:
        if (block1 := request.message.option(BLOCK1)) is None:
            return request.message.payload
        assembly = self._assemblies.pop(request.remote, None) or Assembly(self._config.max_message_bytes)
        frame = self._assembled(request, block1, assembly, request.remote)
        if frame is None:
            self._assemblies[request.remote] = assembly
            if len(self._assemblies) > BLOCK_TRANSFERS:
                self._assemblies.popitem(last=False)
        return frame

    def _new_name(self) -> bytes:
        while True:
            name = secrets.token_urlsafe(6).encode()
            if name not in self.sessions and name not in self._ended:
                return name

    def _make_room(self) -> bool:
        """End the oldest session whose address nobody has proven; return whether there was one."""
        while self._unproven:
            session = self._unproven.pop(next(iter(self._unproven)))
            if not session.proven and not session.ended:
                session.end("the master has too many sessions, and this one was never used")
                self.forget(session)
                return True
        return False

    def _on_silent(self, session: Session) -> None:
        session.end(f"{session.peer} has been silent for {session.timeout_s:g} s", here=False)
        self.forget(session)


def _has_more(request: Request) -> bool:
    """Return whether this is a block of a frame, and not the last one. Raises Malformed."""
    option = request.message.option(BLOCK1)
    return option is not None and parse_block(option)[1]


def _checked(name: bytes) -> bytes:
    """Return a session's name. Raises Malformed if it has not the form of one."""
    if len(name) != NAME_CHARACTERS or not _NAME.issuperset(name):
        raise Malformed("not a session's name")
    return name


def _number(query: list[bytes]) -> int:
    """Return the number of an exchange. Raises Malformed if there is none."""
    if len(query) != 1 or not query[0].isdigit() or len(query[0]) > MAX_NUMBER_DIGITS:
        raise Malformed("not a number of an exchange")
    return int(query[0])


def _terms(query: list[bytes]) -> tuple[int, float]:
    """Return what an opening says: the largest frame, and the round trip in seconds (0: not given).

    Unknown terms are left alone, for those that come later. Raises Malformed if one makes no sense.
    """
    max_bytes, round_trip_s = DEFAULT_FRAME_BYTES, 0.0
    for term in query:
        key, _, value = term.partition(b"=")
        if key not in (b"m", b"t"):
            continue
        if not value.isdigit() or len(value) > MAX_NUMBER_DIGITS:
            raise Malformed("not a number")
        if key == b"m":
            max_bytes = int(value)
        else:
            round_trip_s = float(value)
    if not MIN_FRAME_BYTES <= max_bytes <= MAX_FRAME_BYTES or round_trip_s > MAX_ROUND_TRIP_S:
        raise Malformed("out of bounds")
    return max_bytes, round_trip_s
