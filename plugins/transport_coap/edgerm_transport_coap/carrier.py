"""The dialing side's way to a master: requests out, answers back."""

from __future__ import annotations

import abc
from collections.abc import Callable

from edgerm_transport_coap.message import Message, Options

OnNote = Callable[[Message], None]


class CarrierLost(Exception):
    """The master cannot be reached any more; the text goes on behind its URL."""


class Carrier(abc.ABC):
    """Requests to one master.

    Attributes:
        local: whether it is on this machine.
        payload_bytes: the longest payload that one message carries; longer ones go in blocks.
        moves: how often this side has changed its port since it dialed.
    """

    local: bool
    payload_bytes: int
    moves: int = 0

    @abc.abstractmethod
    async def request(
        self, code: int, options: Options, payload: bytes = b"", *, confirmable: bool = True
    ) -> Message:
        """Return the answer. Cancel-safe.

        Raises:
            CarrierLost: if none comes.
        """

    @abc.abstractmethod
    async def observe(self, options: Options, on_note: OnNote) -> Message:
        """As `request`, for a GET whose further answers go to `on_note`, in place of any one before."""

    @abc.abstractmethod
    def post(self, code: int, options: Options, payload: bytes) -> None:
        """Send a request whose answer nobody waits for."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Give everything back; requests under way are lost. Idempotent; never raises."""
