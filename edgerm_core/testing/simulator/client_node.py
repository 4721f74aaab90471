"""What a framework and an operator have in common: a session that is dialled again until it holds."""

from __future__ import annotations

from typing import Final

from edgerm_core.codec import decode_batch, encode
from edgerm_core.errors import DecodeError
from edgerm_core.limits import GREETING_TIMEOUT_S, RECONNECT_BASE_S, RECONNECT_MAX_S, REQUEST_TIMEOUT_S
from edgerm_core.messages import AnyMessage, Heartbeat, Message, Refused
from edgerm_core.testing.simulator.network import UP, Connection, Link
from edgerm_core.testing.simulator.world import Failure, World

POLL_S: Final = 5.0
"""How often a client asks for what waits where the master cannot push."""

LOOK_S: Final = 10.0
"""How often a client looks whether an answer is overdue."""


class ClientNode:
    """A client of the master: dials, greets, dials again.

    Attributes:
        connected: the master has taken it in.
        finished: it will not dial again.
    """

    def __init__(self, world: World, name: str, link: Link) -> None:
        self.world = world
        self.name = name
        self.link = link
        self.luck = world.luck(f"client/{name}")
        self.connected = False
        self.finished = False
        self.dialling = False
        self._connection: Connection | None = None
        self._generation = 0
        self._failures = 0
        self._heard_at = 0.0
        self._owed_since: float | None = None
        world.after(LOOK_S, self._look)

    # --- what the others fill in --------------------------------------------------------------

    def greeting(self) -> Message:
        """Return the first message of a session."""
        raise NotImplementedError

    def took_in(self, message: AnyMessage) -> bool:
        """Return whether this is the answer to the greeting."""
        raise NotImplementedError

    def begin_session(self) -> None:
        """Do what every new session needs."""

    def on_message(self, message: AnyMessage) -> None:
        """Take a message of the session."""

    def on_refused(self, message: Refused) -> None:
        """The master ended the session."""

    @property
    def owed(self) -> bool:
        """Whether an answer is owed."""
        return False

    # --- the session --------------------------------------------------------------------------

    def dial(self) -> None:
        """Connect, unless connected or finished; an older connection is left to itself."""
        if self.finished or self.dialling or self._connection is not None:
            return
        self.dialling = True
        self._generation += 1
        generation = self._generation

        def dialled(connection: Connection | None) -> None:
            if generation != self._generation:
                if connection is not None:
                    connection.close(UP, "not wanted any more")
                return
            self.dialling = False
            if connection is None:
                self._again()
                return
            self._connection = connection
            self._heard_at = self.world.now
            self.say(self.greeting())

            def give_up() -> None:
                if self._connection is connection and not self.connected:
                    self.hang_up("no answer to the greeting")

            self.world.after(GREETING_TIMEOUT_S, give_up)
            self._poll(connection)

        self.link.dial(self, dialled)

    def take_over(self) -> None:
        """Dial anew while the old connection still stands, as a second instance would."""
        self._forget()
        self.dialling = False
        self.dial()

    def hang_up(self, reason: str, *, again: bool = True) -> None:
        """Close the session, and dial again after a while."""
        connection = self._connection
        self._forget()
        self.dialling = False
        if connection is not None:
            connection.close(UP, reason)
        if again:
            self._again()

    def die(self) -> None:
        """The process ends; it comes back with `dial`."""
        self._generation += 1
        self.hang_up("process died", again=False)

    def _forget(self) -> None:
        self.connected = False
        self._connection = None
        self._owed_since = None
        self._generation += 1

    def _again(self) -> None:
        if self.finished:
            return
        self._failures += 1
        bound_s = min(RECONNECT_MAX_S, RECONNECT_BASE_S * 2.0 ** min(self._failures - 1, 16))
        generation = self._generation

        def dial() -> None:
            if generation == self._generation:
                self.dial()

        self.world.after(self.luck.random() * bound_s, dial)

    def say(self, *messages: Message) -> None:
        """Send messages, each in its own frame, if there is a connection."""
        for message in messages:
            if self._connection is not None:
                if self.world.telling:
                    self.world.tell(self.name, f"-> master: {message}")
                self._connection.send(UP, encode(message))

    def say_bytes(self, data: bytes) -> None:
        """Send what may be no message at all."""
        if self._connection is not None:
            self._connection.send(UP, data)

    def on_frame(self, connection: Connection, data: bytes) -> None:
        """See `network.Side`."""
        if connection is not self._connection:
            return
        self._heard_at = self.world.now
        try:
            messages = decode_batch(data)
        except DecodeError as error:
            raise Failure(f"{self.name}: the master sent what is no message: {error}") from error
        for message in messages:
            if connection is not self._connection:
                return
            if self.world.telling:
                self.world.tell(self.name, f"<- master: {message}")
            if isinstance(message, Refused):
                self.on_refused(message)
                self.hang_up(f"refused: {message.code}")
            elif not self.connected:
                if self.took_in(message):
                    self.connected = True
                    self._failures = 0
                    self.begin_session()
            else:
                self.on_message(message)

    def on_closed(self, connection: Connection, reason: str) -> None:
        """See `network.Side`."""
        if connection is self._connection:
            self.world.tell(self.name, f"lost its session: {reason}")
            self._forget()
            self._again()

    def _poll(self, connection: Connection) -> None:
        """Ask for what waits, where the master cannot push."""
        if connection is self._connection and not connection.quality.push:
            self.say(Heartbeat())
            self.world.after(POLL_S, lambda: self._poll(connection))

    def _look(self) -> None:
        if self.connected and self.owed:
            if self._owed_since is None:
                self._owed_since = self.world.now
            elif self.world.now - max(self._owed_since, self._heard_at) > REQUEST_TIMEOUT_S:
                self.hang_up("an answer is overdue")
        else:
            self._owed_since = None
        self.world.after(LOOK_S, self._look)
