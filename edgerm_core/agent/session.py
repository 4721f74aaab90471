"""The agent's side of its session with a master: dialling, registering, keeping the lease.

    OFFLINE -> CONNECTING -> GREETING -> REGISTERED
       ^___________|____________|____________|        through CLOSING where the agent ends it

One session at a time; each has a number, and news of an older one is ignored.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from typing import Final

from edgerm_core.agent.backoff import reconnect_delay_s
from edgerm_core.agent.effects import Connect, Disconnect, Send, Stop
from edgerm_core.agent.turn import Turn
from edgerm_core.ids import SessionId
from edgerm_core.limits import GREETING_TIMEOUT_S
from edgerm_core.messages import (
    Heartbeat,
    HeartbeatAck,
    RefusalCode,
    Refused,
    Register,
    Registered,
)

log = logging.getLogger(__name__)

FATAL_REFUSALS: Final = frozenset(
    {
        RefusalCode.SESSION_REPLACED,
        RefusalCode.VERSION,
        RefusalCode.UNAUTHENTICATED,
        RefusalCode.MALFORMED,
    }
)
"""Only a person can help. Every other code, also one of a later version, means: come back later."""

HEARTBEAT_MIN_S: Final = 0.05
"""Shortest cadence it follows, whatever a master asks for; the config of ours allows no shorter one."""

HEARTBEAT: Final = ("heartbeat", 0, 0)
SILENCE: Final = ("silence", 0, 0)
GREETING: Final = ("greeting", 0, 0)
RECONNECT: Final = ("reconnect", 0, 0)


class SessionState(enum.IntEnum):
    """Where the session stands."""

    OFFLINE = 1
    """Waits to dial again, or for the agent to begin."""
    CONNECTING = 2
    GREETING = 3
    """Register is on its way."""
    REGISTERED = 4
    CLOSING = 5
    """The agent has ended it; the connection is being closed."""
    STOPPED = 6
    """Refused for good. Final."""


class Session:
    """The session.

    Parameters:
        turn: shared with the rest of the machine.
        masters: how many masters the config names; they are dialled in turn.
        greeting: makes the Register message of this moment.
    """

    def __init__(self, turn: Turn, masters: int, greeting: Callable[[], Register]) -> None:
        assert masters >= 1
        self._turn = turn
        self._masters = masters
        self._greeting = greeting
        self.state = SessionState.OFFLINE
        self.number = SessionId(0)
        self.failures = 0
        self.held = False
        self._peer = ""
        self._heartbeat_s = 0.0
        self._lease_s = 0.0
        self._heard_at = 0.0
        self._sent_at = 0.0
        self._asked_at = 0.0

    @property
    def registered(self) -> bool:
        """Whether the master listens to status updates now."""
        return self.state is SessionState.REGISTERED

    @property
    def heartbeat_s(self) -> float:
        """How often the master wants to hear something."""
        return self._heartbeat_s

    def is_current(self, number: SessionId) -> bool:
        """Return whether news of session `number` still matters."""
        return number == self.number and self.state not in (SessionState.OFFLINE, SessionState.STOPPED)

    def connect(self) -> None:
        """Dial the next master, unless `held`."""
        assert self.state is SessionState.OFFLINE
        if self.held:
            return
        self.number = SessionId(self.number + 1)
        self.state = SessionState.CONNECTING
        self._turn.emit(Connect(self.number, (self.number - 1) % self._masters))

    def hold(self) -> None:
        """Do not dial until `let_go`. Idempotent."""
        self.held = True

    def let_go(self) -> None:
        """Dial again, at once if it is time. Idempotent."""
        if not self.held:
            return
        self.held = False
        if self.state is SessionState.OFFLINE and RECONNECT not in self._turn.deadlines:
            self.connect()

    def connected(self, peer: str) -> None:
        """The connection stands: say who we are."""
        if self.state is not SessionState.CONNECTING:
            return
        self._peer = peer
        self.state = SessionState.GREETING
        self._turn.deadlines.set(GREETING, self._turn.now + GREETING_TIMEOUT_S)
        self._turn.emit(Send(self._greeting()))

    def disconnected(self, problem: str, jitter: float) -> None:
        """The connection is gone, or never came about: dial again after a while."""
        was_registered = self.state is SessionState.REGISTERED
        self.state = SessionState.OFFLINE
        self.failures += 1
        for key in (HEARTBEAT, SILENCE, GREETING):
            self._turn.deadlines.cancel(key)
        delay_s = reconnect_delay_s(self.failures, jitter)
        self._turn.deadlines.set(RECONNECT, self._turn.now + delay_s)
        level = logging.WARNING if was_registered or self.failures == 1 else logging.INFO
        log.log(level, "no master: %s; dialling again in %.1f s", problem, delay_s)

    def close(self, reason: str) -> None:
        """End the session; `disconnected` will follow."""
        if self.state in (SessionState.CONNECTING, SessionState.GREETING, SessionState.REGISTERED):
            self.state = SessionState.CLOSING
            self._turn.emit(Disconnect(self.number, reason))

    def heard(self) -> None:
        """A frame came in."""
        self._heard_at = self._turn.now

    def sent(self) -> None:
        """A frame went out."""
        self._sent_at = self._turn.now

    def on_registered(self, message: Registered) -> bool:
        """Take the master's answer; return whether this begins a registration."""
        if self.state is not SessionState.GREETING:
            return False
        self.state = SessionState.REGISTERED
        self.failures = 0
        self._turn.deadlines.cancel(GREETING)
        self._sent_at = self._turn.now
        self._set_cadence(message.heartbeat_s, message.lease_s)
        log.info("registered with %s", self._peer)
        return True

    def on_heartbeat_ack(self, message: HeartbeatAck) -> None:
        """Take a new cadence, where the master names one."""
        if self.state is not SessionState.REGISTERED:
            return
        if message.heartbeat_s > 0 or message.lease_s > 0:
            self._set_cadence(message.heartbeat_s or self._heartbeat_s, message.lease_s or self._lease_s)

    def on_refused(self, message: Refused) -> None:
        """The master ended the session: give up, or come back later."""
        if message.code in FATAL_REFUSALS:
            self.state = SessionState.STOPPED
            for key in (HEARTBEAT, SILENCE, GREETING, RECONNECT):
                self._turn.deadlines.cancel(key)
            self._turn.emit(Stop(message.code, message.message))
        else:
            self.close(f"the master refused the session ({message.code}): {message.message}")

    def due(self, name: str) -> None:
        """One of this session's deadlines has come.

        Heartbeat and lease are looked at when the earliest moment they could matter comes, and set
        again from what has happened since: a busy session changes no timer for each frame.
        """
        now = self._turn.now
        if name == "reconnect":
            self.connect()
        elif name == "greeting":
            self.close(f"no answer to the registration within {GREETING_TIMEOUT_S:.0f} s")
        elif name == "heartbeat":
            if now >= self._heartbeat_at():
                self._turn.emit(Send(Heartbeat()))
                self._sent_at = self._asked_at = now
            self._turn.deadlines.set(HEARTBEAT, self._heartbeat_at())
        elif now >= self._heard_at + self._lease_s:
            self.close(f"not a word from the master for {self._lease_s:.0f} s")
        else:
            self._turn.deadlines.set(SILENCE, self._heard_at + self._lease_s)

    def _heartbeat_at(self) -> float:
        """Return when to ask whether the master lives: nothing has been sent, or heard, for a while.

        What it is sent need not be answered (a log that is followed), so speaking alone is no sign.
        """
        return max(self._asked_at, min(self._sent_at, self._heard_at)) + self._heartbeat_s

    def _set_cadence(self, heartbeat_s: float, lease_s: float) -> None:
        self._heartbeat_s = max(heartbeat_s, HEARTBEAT_MIN_S)
        self._lease_s = max(lease_s, self._heartbeat_s)
        self._turn.deadlines.set(HEARTBEAT, self._heartbeat_at())
        self._turn.deadlines.set(SILENCE, self._heard_at + self._lease_s)
