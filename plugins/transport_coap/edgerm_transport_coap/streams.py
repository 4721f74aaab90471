"""CoAP on TCP and WebSocket: RFC 8323, server and client.

There are no message ids, no acknowledgements and no repetitions: the stream does that. Each side begins
with a CSM that says how long messages may be.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import http
import ipaddress
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from edgerm_transport_coap.config import (
    CLOSE_TIMEOUT_S,
    MAX_FRAME_BYTES,
    MIN_STREAM_MESSAGE_BYTES,
    STRANGER_S,
    STREAM_OVERHEAD_BYTES,
    STREAM_WRITE_BYTES,
)
from edgerm_transport_coap.message import (
    ABORT,
    CSM,
    EMPTY,
    PING,
    PONG,
    RELEASE,
    Malformed,
    Message,
    Options,
    decode_stream,
    decode_websocket,
    encode_tcp,
    encode_websocket,
    parse_uint,
    tcp_body_bytes,
    tcp_length_bytes,
    uint,
)
from edgerm_transport_coap.request import ACKNOWLEDGED, Request
from edgerm_transport_coap.strangers import Strangers
from edgerm_transport_coap.url import Url, host_and_port

if TYPE_CHECKING:
    from websockets.asyncio.connection import Connection as WebSocket

log = logging.getLogger(__name__)

OVERHEAD_BYTES: Final = 256
"""Room for code, token and options around a payload."""

MAX_MESSAGE_BYTES: Final = MAX_FRAME_BYTES + OVERHEAD_BYTES
"""What this side takes, options counted; larger ones come in blocks."""

DEFAULT_MESSAGE_BYTES: Final = 1152
"""What a peer takes that has not said so (RFC 8323, section 5.3.1)."""

MAX_MESSAGE_SIZE: Final = 2
BLOCK_WISE_TRANSFER: Final = 4
"""Options of a CSM."""

MAX_MESSAGE_SIZE_BYTES: Final = 4
"""Longest value; a longer one is as if it were not there (RFC 7252, section 5.4.3)."""

BAD_CSM_OPTION: Final = 2
"""Option of an abort."""

LISTEN_BACKLOG: Final = 1024

WEBSOCKET_PATH: Final = "/.well-known/coap"
WEBSOCKET_SUBPROTOCOL: Final = "coap"
"""RFC 8323, sections 8.3 and 4.1."""


class StreamEnded(Exception):
    """The stream is over; the text says why."""


class Stream(abc.ABC):
    """One TCP or WebSocket connection.

    Attributes:
        peer_message_bytes: the largest message that the peer takes.
        address: the peer's.
    """

    scheme: str

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.peer_message_bytes = DEFAULT_MESSAGE_BYTES
        #: Where the listening side has it while no session lives on it.
        self.strangers: Strangers | None = None
        self._sessions = 0
        self._greeted = False

    @property
    def payload_bytes(self) -> int:
        """The longest payload that fits into a message to the peer."""
        return self.peer_message_bytes - STREAM_OVERHEAD_BYTES

    @property
    def peer(self) -> str:
        """The other end, for people."""
        return f"{self.scheme}://{host_and_port(*self.address)}"

    @property
    def local(self) -> bool:
        """Whether the peer is on this machine."""
        try:
            address = ipaddress.ip_address(self.address[0].partition("%")[0])
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return (mapped or address).is_loopback

    @property
    @abc.abstractmethod
    def connection(self) -> asyncio.WriteTransport:
        """What it is made of."""

    @abc.abstractmethod
    def write(self, message: Message) -> None:
        """Queue a message; dropped if the stream has ended."""

    @abc.abstractmethod
    async def drain(self) -> None:
        """Wait until few bytes are queued."""

    @abc.abstractmethod
    async def read_any(self) -> Message:
        """Return the next message. Raises StreamEnded or Malformed."""

    @abc.abstractmethod
    async def close(self) -> None:
        """End the stream, after what is queued. Idempotent; never raises."""

    def greet(self) -> None:
        """Send the CSM."""
        self.write(Message(CSM, [(MAX_MESSAGE_SIZE, uint(MAX_MESSAGE_BYTES)), (BLOCK_WISE_TRANSFER, b"")]))

    def settle(self) -> Callable[[], None]:
        """See `Request.settle`."""
        self._sessions += 1
        if self.strangers is not None:
            self.strangers.discard(self.connection)
        return self._leave

    def _leave(self) -> None:
        self._sessions -= 1
        if not self._sessions and self.strangers is not None and not self.connection.is_closing():
            self.strangers.add(self.connection)

    async def read(self) -> Message:
        """Return the next request or response; signals are dealt with.

        Raises:
            StreamEnded: if the stream is over, or the peer broke the protocol.
        """
        while True:
            try:
                message = await self.read_any()
                if message.code >> 5 != 7:
                    if not self._greeted:
                        raise Malformed("a message before the CSM")
                    if message.code != EMPTY:  # RFC 8323, section 3.4: empty messages are ignored.
                        return message
                else:
                    self._on_signal(message)
            except Malformed as error:
                options = error.options if isinstance(error, _BadSignal) else []
                self.write(Message(ABORT, options, str(error).encode()))
                raise StreamEnded(f"{self.peer} broke the protocol: {error}") from None

    def _on_signal(self, message: Message) -> None:
        # RFC 8323, section 5.2: none that is critical has been defined, and elective ones may be ignored.
        critical = next((number for number, _ in message.options if number & 1), None)
        if critical is not None:
            raise _BadSignal(critical, of_csm=message.code == CSM)
        if message.code == CSM:
            self._greeted = True
            size = message.option(MAX_MESSAGE_SIZE)
            if size is not None and len(size) <= MAX_MESSAGE_SIZE_BYTES:
                self.peer_message_bytes = parse_uint(size)
                if self.peer_message_bytes < MIN_STREAM_MESSAGE_BYTES:
                    raise Malformed(f"Max-Message-Size must be {MIN_STREAM_MESSAGE_BYTES} at least")
        elif message.code == PING:
            self.write(Message(PONG, token=message.token))
        elif message.code in (RELEASE, ABORT):
            raise StreamEnded(f"{self.peer} ended the connection")
        elif message.code != PONG:
            raise Malformed("an unknown signal")


class _BadSignal(Malformed):
    """A signal has a critical option that is not understood.

    Attributes:
        options: of the abort that answers it.
    """

    def __init__(self, number: int, *, of_csm: bool) -> None:
        super().__init__(f"the critical option {number} of a signal is unknown")
        # RFC 8323, section 5.6.
        self.options: Options = [(BAD_CSM_OPTION, uint(number))] if of_csm else []


class TcpStream(Stream):
    """A TCP connection."""

    scheme = "coap+tcp"

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(writer.get_extra_info("peername")[:2])
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=STREAM_WRITE_BYTES)

    @property
    def connection(self) -> asyncio.WriteTransport:
        """See `Stream`."""
        return self._writer.transport

    def write(self, message: Message) -> None:
        """See `Stream`."""
        if not self._writer.is_closing():
            self._writer.write(encode_tcp(message))

    async def drain(self) -> None:
        """See `Stream`."""
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def read_any(self) -> Message:
        """See `Stream`."""
        read = self._reader.readexactly
        try:
            first = (await read(1))[0]
            extended = tcp_length_bytes(first)
            size = tcp_body_bytes(first, await read(extended) if extended else b"")
            if size > MAX_MESSAGE_BYTES or first & 15 > 8:
                raise Malformed("a message is too long")
            rest = await read(1 + (first & 15) + size)
        except asyncio.IncompleteReadError:
            raise StreamEnded(f"{self.peer} hung up") from None
        except OSError as error:
            raise StreamEnded(f"the connection to {self.peer} broke: {error.strerror or error}") from None
        return decode_stream(first & 15, rest[0], rest[1:])

    async def close(self) -> None:
        """See `Stream`."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()
        self._writer.transport.abort()


class WebSocketStream(Stream):
    """A WebSocket; websockets sends from a coroutine, so that there is a queue and a task for it."""

    scheme = "coap+ws"

    def __init__(self, websocket: WebSocket) -> None:
        super().__init__(websocket.remote_address[:2])
        self._websocket = websocket
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._queued_bytes = 0
        self._few = asyncio.Event()
        self._few.set()
        self._sending = asyncio.create_task(self._send_all())

    @property
    def connection(self) -> asyncio.WriteTransport:
        """See `Stream`."""
        return self._websocket.transport

    def write(self, message: Message) -> None:
        """See `Stream`."""
        if not self._sending.done():
            data = encode_websocket(message)
            self._queued_bytes += len(data)
            if self._queued_bytes > STREAM_WRITE_BYTES:
                self._few.clear()
            self._queue.put_nowait(data)

    async def _send_all(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            while (data := await self._queue.get()) is not None:
                await self._websocket.send(data)
                self._queued_bytes -= len(data)
                if self._queued_bytes <= STREAM_WRITE_BYTES:
                    self._few.set()
        except ConnectionClosed:
            pass
        finally:
            self._few.set()

    async def drain(self) -> None:
        """See `Stream`."""
        await self._few.wait()

    async def read_any(self) -> Message:
        """See `Stream`."""
        from websockets.exceptions import ConnectionClosed

        try:
            data = await self._websocket.recv()
        except ConnectionClosed as closed:
            raise StreamEnded(f"the connection to {self.peer} ended: {closed}") from None
        except UnicodeDecodeError:
            raise Malformed("a text message") from None
        if not isinstance(data, bytes):
            raise Malformed("a text message")
        return decode_websocket(data)

    async def close(self) -> None:
        """See `Stream`."""
        self._queue.put_nowait(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._sending
                await self._websocket.close()
        self._sending.cancel()
        self._websocket.transport.abort()


class StreamRequest(Request):
    """A request that came in on a stream, whose peer has proven by its handshake where it is."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream, message: Message) -> None:
        super().__init__(message, stream)
        self._stream = stream

    room = None
    identity = None
    bert = True

    @property
    def peer(self) -> str:
        """See `Request`."""
        return self._stream.peer

    @property
    def local(self) -> bool:
        """See `Request`."""
        return self._stream.local

    @property
    def payload_bytes(self) -> int:
        """See `Request`."""
        return self._stream.payload_bytes

    def settle(self) -> Callable[[], None]:
        """See `Request`."""
        return self._stream.settle()

    def respond(self, code: int, options: Options | None = None, payload: bytes = b"") -> None:
        """See `Request`."""
        self.answered = True
        self._stream.write(Message(code, options, payload, token=self.message.token))

    def respond_proving(
        self, code: int, options: Options, payload: bytes, on_proven: Callable[[], None]
    ) -> None:
        """See `Request`."""
        on_proven()
        self.respond(code, options, payload)

    def prove(self, on_end: Callable[[str], None]) -> Callable[[], None]:
        """See `Request`."""
        on_end(ACKNOWLEDGED)
        return self.stop

    def acknowledge(self) -> None:
        """See `Request`. Streams do without."""

    def notify(
        self, code: int, options: Options, payload: bytes, on_end: Callable[[str], None]
    ) -> Callable[[], None]:
        """See `Request`."""
        stream = self.remote
        assert isinstance(stream, Stream)
        stream.write(Message(code, options, payload, token=self.message.token))
        return self.stop

    def stop(self) -> None:
        """See `Request`. Nothing is repeated."""


class StreamServer:
    """Accepts streams.

    Parameters:
        on_request: given each request; answers it now or later.
    """

    def __init__(self, on_request: Callable[[Request], None]) -> None:
        self._on_request = on_request
        self._server: Any = None
        self._strangers = Strangers()
        self._streams: dict[Stream, asyncio.Task[Any]] = {}

    async def start(self, url: Url) -> int:
        """Bind and accept; return the port. Raises OSError if the system does not let us."""
        if url.scheme == "coap+tcp":
            self._server = await asyncio.start_server(
                self._serve_tcp, url.host, url.port, backlog=LISTEN_BACKLOG, limit=MAX_MESSAGE_BYTES
            )
        else:
            from websockets.asyncio.server import ServerConnection, serve
            from websockets.typing import Subprotocol

            strangers = self._strangers

            class Counted(ServerConnection):
                """websockets' connection, which is bounded from its first byte on."""

                def connection_made(self, transport: Any) -> None:
                    super().connection_made(transport)
                    strangers.add(transport)

                def connection_lost(self, exc: Exception | None) -> None:
                    strangers.discard(self.transport)
                    super().connection_lost(exc)

            self._server = await serve(
                self._serve_websocket,
                url.host,
                url.port,
                backlog=LISTEN_BACKLOG,
                # Only browsers send an origin: no page may reach a master through 127.0.0.1.
                origins=[None],
                subprotocols=[Subprotocol(WEBSOCKET_SUBPROTOCOL)],
                process_request=_check_path,
                create_connection=Counted,
                open_timeout=STRANGER_S,
                compression=None,
                ping_interval=None,
                max_size=MAX_MESSAGE_BYTES + OVERHEAD_BYTES,
                max_queue=4,
                logger=quiet_logger(),
            )
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def close(self) -> None:
        """Accept no more and end all streams. Idempotent."""
        self._server.close()
        self._strangers.close()
        for stream, task in list(self._streams.items()):
            await stream.close()
            if task is not asyncio.current_task():
                task.cancel()
        if self._streams:
            await asyncio.wait(
                [task for task in self._streams.values() if task is not asyncio.current_task()]
            )

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._strangers.add(writer.transport)
        await self._serve(TcpStream(reader, writer))

    async def _serve_websocket(self, websocket: WebSocket) -> None:
        await self._serve(WebSocketStream(websocket))

    async def _serve(self, stream: Stream) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._streams[stream] = task
        stream.strangers = self._strangers
        try:
            stream.greet()
            while True:
                message = await stream.read()
                if 0 < message.code < 0x20:
                    self._on_request(StreamRequest(stream, message))
                await stream.drain()
        except StreamEnded as error:
            log.debug("%s", error)
        except asyncio.CancelledError:
            pass  # By `close`.
        finally:
            del self._streams[stream]
            stream.strangers = None
            self._strangers.discard(stream.connection)
            await stream.close()


def _check_path(websocket: Any, request: Any) -> Any:
    if request.path.partition("?")[0] != WEBSOCKET_PATH:
        return websocket.respond(http.HTTPStatus.NOT_FOUND, f"CoAP is at {WEBSOCKET_PATH}\n")
    return None


def quiet_logger() -> logging.Logger:
    """Return a logger for websockets, whose words are about one peer, who may be a port scanner."""
    logger = logging.getLogger("edgerm_transport_coap.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger


async def open_tcp(host: str, port: int) -> Stream:
    """Dial. Raises OSError."""
    reader, writer = await asyncio.open_connection(host, port, limit=MAX_MESSAGE_BYTES)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return TcpStream(reader, writer)


async def open_websocket(host: str, port: int, local: bool) -> Stream:
    """Dial. Raises OSError, or StreamEnded if no CoAP server is there."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException
    from websockets.typing import Subprotocol

    try:
        websocket = await connect(
            f"ws://{host_and_port(host, port)}{WEBSOCKET_PATH}",
            subprotocols=[Subprotocol(WEBSOCKET_SUBPROTOCOL)],
            proxy=None if local else True,
            compression=None,
            ping_interval=None,
            open_timeout=None,
            max_size=MAX_MESSAGE_BYTES + OVERHEAD_BYTES,
            max_queue=4,
            logger=quiet_logger(),
        )
    except (WebSocketException, EOFError) as error:
        raise StreamEnded(
            f"does not answer like CoAP over WebSocket: check host and port ({error})"
        ) from error
    return WebSocketStream(websocket)
