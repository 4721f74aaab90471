"""Requests to a master over TCP or WebSocket."""

from __future__ import annotations

import asyncio
import itertools

from edgerm_transport_coap.carrier import Carrier, CarrierLost, OnNote
from edgerm_transport_coap.config import CoapConfig
from edgerm_transport_coap.message import GET, OBSERVE, RELEASE, Message, Options, uint
from edgerm_transport_coap.streams import Stream, StreamEnded


class StreamCarrier(Carrier):
    """Over a stream that stands already.

    Parameters:
        local: see `Carrier`.
        config: the dialing side's.
    """

    def __init__(self, stream: Stream, local: bool, config: CoapConfig) -> None:
        self.local = local
        self._stream = stream
        self._config = config
        self._tokens = itertools.count(1)
        self._asked: dict[bytes, asyncio.Future[Message]] = {}
        self._observed = b""
        self._on_note: OnNote = _nobody
        self._lost = ""
        stream.greet()
        # A task of its own, because a connection has no task group to live in.
        self._reading = asyncio.create_task(self._read())

    @property
    def payload_bytes(self) -> int:  # type: ignore[override]
        """See `Carrier`: what the master has said in its CSM."""
        return self._stream.payload_bytes

    async def request(
        self, code: int, options: Options, payload: bytes = b"", *, confirmable: bool = True
    ) -> Message:
        """See `Carrier`."""
        return await self._ask(Message(code, options, payload, token=uint(next(self._tokens))))

    async def observe(self, options: Options, on_note: OnNote) -> Message:
        """See `Carrier`."""
        token = self._observed = uint(next(self._tokens))
        self._on_note = on_note
        return await self._ask(Message(GET, [(OBSERVE, b""), *options], token=token))

    def post(self, code: int, options: Options, payload: bytes) -> None:
        """See `Carrier`."""
        self._stream.write(Message(code, options, payload, token=uint(next(self._tokens))))

    async def close(self) -> None:
        """See `Carrier`."""
        self._lose("was left")
        self._stream.write(Message(RELEASE))
        self._reading.cancel()
        await self._stream.close()

    async def _ask(self, message: Message) -> Message:
        if self._lost:
            raise CarrierLost(self._lost)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked[message.token] = answer
        try:
            self._stream.write(message)
            async with asyncio.timeout(self._config.silence_s):
                await self._stream.drain()
                return await answer
        except TimeoutError:
            raise CarrierLost(f"has not answered for {self._config.silence_s:g} s") from None
        finally:
            del self._asked[message.token]

    async def _read(self) -> None:
        try:
            while True:
                message = await self._stream.read()
                answer = self._asked.get(message.token)
                if answer is not None:
                    if not answer.done():
                        answer.set_result(message)
                elif message.token == self._observed:
                    self._on_note(message)
        except StreamEnded as error:
            self._lose(f"ended the connection ({error})")

    def _lose(self, text: str) -> None:
        self._lost = self._lost or text
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(CarrierLost(self._lost))


def _nobody(message: Message) -> None:
    """Nobody observes."""
