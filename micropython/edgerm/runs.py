"""What runs here, and what the master has been told of it: the rules of docs/protocol/README.md.

Orders are levels: a Launch of an attempt that is known changes nothing, one of an older attempt is
ignored, one of a newer attempt first ends the older one; a Kill ends all attempts up to its own. Every
attempt ends with exactly one final update, which is said again until it is acknowledged.
"""

import gc

from micropython import const

from edgerm import blob_cache, cbor, part

_STARTING = const(3)
_RUNNING = const(4)
_KILLING = const(5)
_FINISHED = const(10)
FAILED = const(11)
KILLED = const(12)
_DROPPED = const(14)

# Phases of an attempt.
WAIT = const(1)  # An older attempt of the task still has to end.
_FETCH = const(2)
_RUN = const(3)
_DELAY = const(4)  # Between two runs.
END = const(5)  # Until the master has acknowledged it.

_RESEND_MS = const(10000)
_RESEND_MAX_MS = const(600000)
_LAST_WORDS = const(16)
"""Ends remembered after they were acknowledged: a Launch that was on its way must not start it again."""

_FOREVER = float("inf")


class Run:
    """An attempt. `raw` is its Launch as it came: a tenth of what the decoded message would take."""

    def __init__(self, raw, message):
        self.raw = raw
        self.task_id = message[1]
        self.attempt = message[2]
        self.phase = _FETCH
        self.restarts = 0
        self.count = (0, 0, 0)
        self.ending = None
        self.job = None
        # By `now()`: when the run began or begins, when it must have stopped, when the master was last
        # there.
        self.at = self.stop_by = 0
        self.limit_at = self.alone_at = self.steady_at = _FOREVER
        # One numbered update is under way at a time; a newer one waits, and replaces one that waits.
        self.last_seq = 0
        self.unacked = None
        self.waiting = None
        self.resend_at = 0
        self.resend_ms = _RESEND_MS

    def launch(self):
        """Return Launch with everything that was left out of it."""
        message = cbor.Reader(self.raw).read()
        message += _LAUNCH_DEFAULTS[len(message) - 6 :]
        return message

    def state(self):
        """Return what a registration says of it."""
        if self.phase == END:
            return (self.waiting or self.unacked)[4]
        if self.ending is not None and self.ending[0] == KILLED:
            return _KILLING
        return _RUNNING if self.phase == _RUN else _STARTING

    def changed(self):
        """Return the journal's record of a restart."""
        return [100, self.task_id, self.attempt, self.restarts] + list(self.count)

    def blob(self):
        """Return the blob that it needs, or None."""
        return self.launch()[5].get("blob")


_LAUNCH_DEFAULTS = [(), {}, (), (), {}, None, None, 5, 0]
"""From `resources` on."""


class Runs:
    """All attempts.

    Parameters:
        agent: see `agent.Agent`.
        text_bytes: longest message of an update.
        result_bytes: longest result.

    Attributes:
        known: every attempt that has not ended, or whose end has not been acknowledged.
        listening: whether the master takes updates now.
    """

    def __init__(self, agent, text_bytes, result_bytes):
        self._agent = agent
        self._text_bytes = text_bytes
        self._result_bytes = result_bytes
        self.known = []
        self.last_words = []
        self._echoes = []
        self.listening = False

    # --- what the master says -----------------------------------------------------------------

    def acknowledge(self, message):
        """Take an Acknowledge."""
        for run in self.known:
            if run.task_id == message[1] and run.attempt == message[2]:
                break
        else:
            return
        last = run.unacked
        if last is None or message[3] < last[3]:
            return
        run.unacked = None
        run.resend_ms = _RESEND_MS
        if run.phase == END and run.waiting is None:
            if self.newest(run.task_id) == run.attempt:
                self.remember(last[:6])
            self.forget(run)

    def newest(self, task_id):
        """Return the largest attempt of a task that is remembered, or 0."""
        newest = 0
        for run in self.known:
            if run.task_id == task_id and run.attempt > newest:
                newest = run.attempt
        for last in self.last_words:
            if last[1] == task_id and last[2] > newest:
                newest = last[2]
        return newest

    # --- what happens to runs -----------------------------------------------------------------

    def arrived(self, blob, reason, message):
        """A blob is there, or cannot be had."""
        for run in self.known[:]:
            if run.phase == _FETCH and run.blob() == blob:
                if not reason:
                    self._soon(run)
                else:
                    self.finish(
                        run, _DROPPED if reason == "resources-unavailable" else FAILED, reason, message
                    )

    def in_use(self, name):
        """Return whether a task that has not ended needs the blob of that file name."""
        for run in self.known:
            if run.phase != END and run.blob() and blob_cache.name(run.blob()) == name:
                return True
        return False

    def ended(self, run, ok, reason, message="", code=None, result=None, final=0):
        """A run has ended by itself, or has been stopped.

        Parameters:
            final: a state that no restart can help, such as ERROR; 0: there is none.
        """
        run.job = None
        if run.ending is not None:
            self._finish_as(run, message, code, result)
        elif final:
            self.finish(run, final, reason, message)
        elif not self.restart(run, ok, message or reason):
            self.finish(run, _FINISHED if ok else FAILED, reason, message, code, result)

    def restart(self, run, ok, why, lost=False):
        """Start it again in place after a while, if its policy wants that; return whether it does."""
        now = self._agent.now
        ran_ms = now - run.at if run.phase == _RUN else 0
        again = part("restart").next_restart(run.launch()[10], run.count, ok, ran_ms, lost)
        if again is None:
            return False
        delay_ms, run.count = again
        run.restarts += 1
        run.phase = _DELAY
        run.at = now + delay_ms
        run.limit_at = run.steady_at = _FOREVER
        self._write(run.changed())
        self.report(run, _STARTING, "restarting", why)
        return True

    # --- the master comes and goes ------------------------------------------------------------

    def came(self, away_s=0):
        """Somebody listens: say everything that has not been acknowledged.

        Parameters:
            away_s: see `away`.
        """
        self.listening = True
        self.away(away_s)
        for run in self.known:
            run.resend_at = self._agent.now
            run.resend_ms = _RESEND_MS

    def left(self):
        """Nobody listens."""
        self.listening = False
        self._echoes.clear()
        self._count_down(0)

    def away(self, away_s):
        """Hear from a gateway for how long it has not reached its master; 0: it does, or is the master."""
        if away_s:
            self._count_down(away_s)
        else:
            for run in self.known:
                run.alone_at = _FOREVER

    def _count_down(self, away_s):
        """Count for tasks that must not go on for long without the master: from when it was last there."""
        for run in self.known:
            if run.ending is None and run.phase != END:
                after_s = run.launch()[11]
                if after_s is not None:
                    # A gateway may have been cut off for longer than this board, or been restarted.
                    left_ms = max(0, int((after_s - away_s) * 1000))
                    run.alone_at = min(run.alone_at, self._agent.now + left_ms)

    # --- what is said -------------------------------------------------------------------------

    def has_words(self, now):
        """Return whether `say` would say something."""
        if self._echoes:
            return True
        for run in self.known:
            if run.waiting is not None if run.unacked is None else now >= run.resend_at:
                return True
        return False

    def say(self, buf, at, now):
        """Write the updates that are due and return where they end; what does not fit waits."""
        try:
            while self._echoes:
                at = cbor.put(buf, at, self._echoes[0])
                self._echoes.pop(0)
            for run in self.known:
                if run.unacked is None and run.waiting is not None:
                    run.last_seq += 1
                    run.unacked = run.waiting
                    run.unacked[3] = run.last_seq
                    run.waiting = None
                    run.resend_at = now
                if run.unacked is not None and now >= run.resend_at:
                    at = cbor.put(buf, at, run.unacked)
                    run.resend_at = now + run.resend_ms
                    run.resend_ms = min(run.resend_ms * 2, _RESEND_MAX_MS)
        except ValueError:
            pass  # Full: the rest comes with the next exchange.
        return at

    def report(self, run, state, reason, message="", code=None, result=None):
        """Let the master know where an attempt stands."""
        if result is not None and len(result) > self._result_bytes:
            message = "result dropped: %d bytes, the limit is %d. %s" % (
                len(result),
                self._result_bytes,
                message,
            )
            result = None
        message = cut(message, self._text_bytes)
        update = [6, run.task_id, run.attempt, 0, state, reason]
        # Fields at the end that have their default are left out.
        if result is not None:
            update += (message, run.restarts, code, None, result)
        elif code is not None:
            update += (message, run.restarts, code)
        elif run.restarts:
            update += (message, run.restarts)
        elif message:
            update.append(message)
        run.waiting = update

    def echo(self, update):
        """Say an update once more, without waiting for an acknowledgement."""
        if len(self._echoes) < _LAST_WORDS and update not in self._echoes:
            self._echoes.append(update)

    def remember(self, update):
        """Keep the last word of an attempt that has ended."""
        self.last_words.append(update)
        if len(self.last_words) > _LAST_WORDS:
            self.last_words.pop(0)

    # --- time ---------------------------------------------------------------------------------

    def due(self, now):
        """Do what is due; return when to come back."""
        soonest = _FOREVER
        for run in self.known[:]:
            if run.phase == END:
                continue
            if now >= run.limit_at:
                text = "ran longer than its limit of %g s" % run.launch()[12]
                self.stop(run, (FAILED, "time-limit", text, True), run.launch()[13])
            if now >= run.alone_at:
                run.alone_at = _FOREVER
                text = "stopped after %g s without the master, as its policy asks" % run.launch()[11]
                self.stop(run, (FAILED, "stopped-while-disconnected", text, True), run.launch()[13])
            if now >= run.steady_at:
                # It has gone well for a whole interval. Written down, because a clock that begins anew with
                # every start would otherwise count a service's reboots over years as if they came in a row.
                run.steady_at = _FOREVER
                run.count = (0, 0, 0)
                self._write(run.changed())
            if run.phase == _DELAY:
                if now >= run.at:
                    self._start(run)
                else:
                    soonest = min(soonest, run.at)
            if run.job is not None and run.ending is not None and run.stop_by < _FOREVER:
                if now >= run.stop_by:
                    run.stop_by = _FOREVER
                    run.job.stop(True)
                else:
                    soonest = min(soonest, run.stop_by)
            soonest = min(soonest, run.limit_at, run.alone_at, run.steady_at)
        if self.listening:
            for run in self.known:
                if run.unacked is not None:
                    soonest = min(soonest, run.resend_at)
        return soonest

    def starve(self):
        """There is no memory left to work with: stop the newest run for it; return whether there is one."""
        for run in reversed(self.known):
            if run.job is not None and run.ending is None:
                text = "stopped because the board had no memory left to work with"
                self.stop(run, (FAILED, "out-of-memory", text, True), 0)
                return True
        return False

    # --- the life of one attempt --------------------------------------------------------------

    def begin(self, task_id):
        """Let the attempt of a task that waits start, if nothing is in its way."""
        waiting = None
        for run in self.known:
            if run.task_id == task_id and run.phase == WAIT:
                waiting = run
            elif run.task_id == task_id and run.phase != END:
                return
        if waiting is not None:
            self._soon(waiting)

    def _soon(self, run):
        # In the next step: when what handled the order, or fetched the blob, has left the memory.
        run.phase = _DELAY
        run.at = 0
        self._agent.again = True

    def _start(self, run):
        launch = run.launch()
        blob = run.blob()
        run.phase = _FETCH
        if blob and not self._agent.blob_path(blob):
            self._agent.want(blob)
            self.report(run, _STARTING, "fetching")
            return
        run.phase = _RUN
        run.at = self._agent.now
        if launch[12] is not None:
            run.limit_at = run.at + int(launch[12] * 1000)
        if run.restarts:
            run.steady_at = run.at + int(launch[10].get("interval_s", 300) * 1000)
        self.report(run, _RUNNING, "started")
        gc.collect()
        try:
            run.job = self._agent.start(run, launch)
        except MemoryError:
            self.ended(run, False, "out-of-memory", "the board had no memory left to start the task")

    def stop(self, run, ending, grace_s):
        """Begin to end an attempt. The first reason stands; a shorter grace period counts."""
        stop_by = self._agent.now + int(grace_s * 1000)
        if run.ending is not None and stop_by >= run.stop_by:
            return
        run.stop_by = stop_by
        first = run.ending is None
        if first:
            run.ending = ending
            run.limit_at = run.steady_at = _FOREVER
        if run.job is None:
            self._finish_as(run)
            if run.blob() and not self.in_use(blob_cache.name(run.blob())):
                self._agent.unwant(run.blob())
        elif first:
            run.job.stop(False)

    def _finish_as(self, run, message="", code=None, result=None):
        state, reason, text, report = run.ending
        self.finish(run, state, reason, text or message, code, result, report)

    def finish(self, run, state, reason, message="", code=None, result=None, report=True):
        """End an attempt: the state, its reason and so on become its final update."""
        run.phase = END
        run.job = None
        if report:
            self.report(run, state, reason, message, code, result)
            self._write(run.waiting)
        else:
            self.forget(run)
        self._agent.ended(run)
        self.begin(run.task_id)

    def forget(self, run):
        """The attempt is over and the master knows, or does not want to."""
        self.known.remove(run)
        self._agent.journal.later.append([101, run.task_id, run.attempt])

    def _write(self, record):
        self._agent.journal.write(record, self._agent)


def cut(text, limit):
    """Return `text` cut to so many bytes of UTF-8."""
    data = text.encode()
    if len(data) <= limit:
        return text
    while data[limit] & 0xC0 == 0x80:
        limit -= 1
    return data[:limit].decode()
