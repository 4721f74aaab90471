"""The session with the master: opening it, exchanges by number, the lease; see docs/protocol/coap.md."""

import random

from micropython import const

from edgerm import cbor, coap

_OFFLINE = const(1)
_ENDING = const(2)  # The session of before a reboot is being ended.
_OPENING = const(3)
_GREETING = const(4)  # Open; the answer to Register is still to come.
REGISTERED = const(5)

# What the request under way is.
_EXCHANGE = const(6)
_REST = const(7)  # Of an answer that came in blocks.
_BLOB = const(8)
_RING = const(9)

_BACKOFF_MS = const(500)
_BACKOFF_MAX_MS = const(60000)
_FATAL_MS = const(3600000)
"""After a refusal that only a person can change: nobody may be near the device to start it again."""

_GREETING_MS = const(10000)
_FAST_MS = const(500)
"""Until the next exchange when something has just happened; it doubles up to the heartbeat."""

_SETTLED_MS = const(4000)
"""When the pause has become so long, who wants to sleep need not wait for more."""


class Session:
    """The device's side of it.

    Parameters:
        client: see `coap.Client`.
        config: see `config`.
        agent: has `greeting()`, which returns Register; `take(message, raw)`; `say(buf, at, now)`, which
            writes what is to be said and returns where it ends; `has_words(now)`; `left()`; `opened(name)`;
            `fetcher`, a `blobs.Fetcher` or None.
        old: name of the session of before a reboot, or "".
    """

    def __init__(self, client, config, agent, old):
        self.client = client
        self.name = old
        self.number = 0
        self.rings = None
        self.heartbeat_ms = 0
        self.lease_ms = 0
        self.state = _ENDING if old else _OFFLINE
        self.next_at = 0
        self._host, self._port = config["master"]
        self._opening = ("m=%d" % config["frame_bytes"],)
        if config["datagram_s"] != 2:
            self._opening += ("t=%d" % config["datagram_s"],)
        self._observe = config["observe"] and not config["sleep"]  # Nobody hears a bell in their sleep.
        self._block = -1
        if config["block_bytes"] < config["frame_bytes"]:
            self._block = coap.szx(config["block_bytes"])
        self._agent = agent
        self._asked = 0
        self._unanswered = False
        self._spoke = False
        self._rest = None
        self._failures = 0
        self._pause_ms = _FAST_MS
        self._heard_at = 0
        self._beat_at = -(1 << 30)

    def idle(self):
        """Return whether nothing is under way and nothing has happened just now."""
        settled = self._pause_ms >= min(self.heartbeat_ms, _SETTLED_MS)
        return self.state == REGISTERED and not self.client.waiting and settled

    def beat_at(self):
        """Return when the next heartbeat is due."""
        return self._beat_at + self.heartbeat_ms

    def step(self, now):
        """Go on, without waiting. Returns when to come back at the latest, in terms of `now`."""
        event = self.client.poll(now)
        if event == coap.BELL:
            self.soon(now)
        elif event == coap.ANSWER:
            self._answered(now)
        elif event == coap.LOST:
            self._lost(now)
        if self.state >= _GREETING and now >= self._lease_at():
            self.leave(now)
        if not self.client.waiting:
            self._ask(now)
        due = self.client.due if self.client.waiting else self.next_at
        fetcher = self._agent.fetcher
        if fetcher is not None and not self.client.waiting:
            due = min(due, fetcher.next_at)
        return min(due, self._lease_at()) if self.state >= _GREETING else due

    def _lease_at(self):
        return self._heard_at + (self.lease_ms if self.state == REGISTERED else _GREETING_MS)

    def soon(self, now):
        """Something has happened: talk to the master now, and often for a while."""
        self._pause_ms = _FAST_MS
        if self.state >= _GREETING:
            self.next_at = now

    # --- asking -------------------------------------------------------------------------------

    def _ask(self, now):
        state = self.state
        fetcher = self._agent.fetcher
        if state <= _ENDING:
            if now >= self.next_at:
                self._open(now, state == _ENDING)
        elif self._unanswered:
            self.client.again(now, True)
        elif now >= self.next_at or self._agent.has_words(now):
            self._exchange(now)
        elif state == REGISTERED:
            if self._observe and self.rings is None:
                self._begin(_RING, coap.GET, ("e", self.name), (), -1, True)
                self.client.send(now, self._at, True)
            elif fetcher is not None and now >= fetcher.next_at:
                self._begin(_BLOB, coap.GET, ("b", self.name, fetcher.name()), (), fetcher.block())
                self.client.send(now, self._at, True)

    def _begin(self, asked, *request):
        self._asked = asked
        self._at = self.client.begin(*request)

    def connect(self, now):
        """Find the master; return whether it could be found."""
        try:
            self.client.connect(self._host, self._port)
            return True
        except OSError:
            self.state = _OFFLINE
            self._retry(now)
            return False

    def _open(self, now, ending):
        if not self.connect(now):
            return
        if ending:
            # Otherwise the master would take this start for a second machine with the same id until its
            # lease on the first is over.
            self._begin(_ENDING, coap.DELETE, ("e", self.name))
        else:
            self.state = _OPENING
            self._begin(_OPENING, coap.POST, ("e",), self._opening)
            self._at = cbor.put(self.client.tx, self._at, self._agent.greeting())
        self.client.send(now, self._at, True)

    def _exchange(self, now):
        path = ("e", self.name)
        self._begin(_EXCHANGE, coap.POST, path, (str(self.number + 1),), self._block)
        at = self._at
        if self.state == REGISTERED:
            if now - self._beat_at >= self.heartbeat_ms:
                self._beat_at = now
                at = cbor.put(self.client.tx, at, (3,))
            beat = at
            at = self._agent.say(self.client.tx, at, now)
            self._spoke = at > beat
        self._unanswered = True
        # Whoever only asks what is new does not need an ACK: if no answer comes, it asks again.
        self.client.send(now, at, self._spoke)

    # --- answers ------------------------------------------------------------------------------

    def _answered(self, now):
        client = self.client
        code = client.code
        if self._asked == _ENDING:
            self._ended(now)
        elif code >> 5 != 2:
            self._failed(now, code)
        elif self._asked == _OPENING:
            self.name = str(client.location, "utf-8")
            self._agent.opened(self.name)
            self.number = 0
            self.rings = None
            self.state = _GREETING
            self._heard(now)
        elif self._asked == _BLOB:
            self._heard_at = now
            if self._agent.fetcher is not None:
                self._agent.fetcher.take(memoryview(client.data)[client.payload :], client.block2)
        elif self._asked == _RING:
            # A master that cannot ring says so by leaving Observe out.
            self.rings = client.observed
        else:
            self._heard(now)

    def _heard(self, now):
        client = self.client
        block = client.block2
        if block >= 0 and (block & 8 or self._asked == _REST):
            if self._rest is None:
                self._rest = bytearray()
            self._rest.extend(memoryview(client.data)[client.payload :])
            if block & 8:
                query = (str(self.number + 1),)
                self._begin(_REST, coap.POST, ("e", self.name), query, (block >> 4) + 1 << 4 | block & 7)
                client.send(now, self._at, True)
                return
        data, at = client.data, client.payload
        if self._rest is not None:
            data, at, self._rest = self._rest, 0, None
        if self._unanswered:
            self._unanswered = False
            self.number += 1
        self._heard_at = now
        busy = self._spoke or client.more
        self._spoke = False
        reader = cbor.Reader(data, at)
        while reader.at < len(data):
            begun = reader.at
            try:
                message = reader.read()
                kind = message[0]
            except (ValueError, TypeError, IndexError):
                self.leave(now)
                return
            if self._take(message, kind, now):
                self._agent.take(message, bytes(memoryview(data)[begun : reader.at]))
                busy = busy or kind not in (4, 7)
            if self.state < _GREETING:
                return
        if client.more:
            self._pause_ms = 0
        elif busy or self.state == _GREETING:
            self._pause_ms = _FAST_MS
        else:
            self._pause_ms = self.heartbeat_ms if self.rings else (self._pause_ms or _FAST_MS) * 2
        if self.heartbeat_ms:
            self._pause_ms = min(self._pause_ms, self.heartbeat_ms)
        self.next_at = now + self._pause_ms

    def _take(self, message, kind, now):
        """Take what is the session's own; return whether the agent has to see the message."""
        if kind == 2 and self.state == _GREETING:
            self.state = REGISTERED
            self._failures = 0
            self._beat_at = now
            self._set_cadence(message[2], message[3])
            return True
        if kind == 4:
            if len(message) > 1:
                lease_s = message[2] if len(message) > 2 else 0
                self._set_cadence(message[1] or self.heartbeat_ms / 1000, lease_s or self.lease_ms / 1000)
            return self.state == REGISTERED
        if kind == 52:
            print("edgerm: refused:", message[1], message[2])
            if message[1] == "removed":
                self._agent.take(message, None)
            elif message[1] == "session-replaced":
                self._failures = 7  # By a machine with the same id, which must not become a duel.
            self.leave(now)
            if message[1] in ("version", "unauthenticated", "malformed"):
                self.next_at = now + _FATAL_MS
            return False
        return self.state == REGISTERED

    def _set_cadence(self, heartbeat_s, lease_s):
        self.heartbeat_ms = max(int(heartbeat_s * 1000), 50)
        self.lease_ms = max(int(lease_s * 1000), self.heartbeat_ms)

    # --- when it goes wrong -------------------------------------------------------------------

    def _lost(self, now):
        if self._asked == _ENDING:
            self._ended(now)
        elif self._asked == _OPENING:
            self.leave(now)
        # Everything else is asked again by `_ask`; the lease bounds how often.

    def _ended(self, now):
        self.state = _OFFLINE
        # The master has put the session down, but perhaps not yet taken note that its agent is gone.
        self.next_at = now + _FAST_MS

    def _failed(self, now, code):
        pause_ms = self.client.max_age * 1000 if code == 0xA3 else 0  # 5.03: too many others.
        if self._asked == _BLOB or self._asked == _RING:
            # If it is the session that is gone, an exchange will tell.
            if self._asked == _BLOB and self._agent.fetcher is not None:
                self._agent.fetcher.refuse(code, now + (pause_ms or 1000))
            self.rings = self.rings or False
            self.soon(now)
        else:
            self.leave(now)
            if pause_ms:
                self.next_at = now + pause_ms

    def leave(self, now):
        """Give the session up and open another one after a while."""
        was_registered = self.state == REGISTERED
        self.client.waiting = False
        self.state = _OFFLINE
        self._rest = None
        self._unanswered = False
        self.rings = None
        self._retry(now)
        if was_registered:
            self._agent.left()

    def _retry(self, now):
        # Full jitter, as the big agent does: a site whose power returns must not come back in step.
        bound = min(_BACKOFF_MAX_MS, _BACKOFF_MS << min(self._failures, 7))
        self._failures += 1
        self.next_at = now + random.getrandbits(16) * bound // 0xFFFF
