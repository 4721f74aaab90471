"""The agent: its parts, and what they ask of each other."""

import asyncio
import gc
import sys

from edgerm import blob_cache, now, part

NAP_MS = 200
"""Shortest sleep: below it, falling asleep costs more than waiting."""

STARVED_PAUSE_MS = 100
"""Pause after a step for which there was no memory."""

STARVED_STEPS = 3
"""So many within STARVED_MS, and the newest task is stopped for it; if none runs, the board starts anew."""

STARVED_MS = 60000


class Agent:
    """The agent.

    Parameters:
        config: see `config.load`.
        machine: the module, for sleeping and the watchdog; None: not here.

    Attributes:
        now: time of the current step, in milliseconds.
        again: something happened that the next step should see at once.
        rings: see `logs`.
        fetcher: a `blobs.Fetcher` while there is something to fetch.
        scalars: what it offers, in 1/1000.
        max_tasks: attempts that may be here at the same time.
        id, boot_id, master_id, session_name, devices, journal, runs, session, watchdog: see `boot`.
    """

    def __init__(self, config, machine=None):
        self.config = config
        self.machine = machine
        self._stepping = self.again = False
        self._ticker = self._runner = self._logs_service = self.fetcher = None
        self._starved = self._starved_at = 0
        self.rings = []
        self._over = []  # Runs that the next step has to see to.
        self.now = now()
        part("boot").set_up(self, config, machine)

    # --- turning ------------------------------------------------------------------------------

    async def serve(self):
        """Work for ever."""
        self._ticker = asyncio.current_task()
        listening = False
        while True:
            try:
                wait_ms = self.step()
                if not listening and self.session.client.sock is not None:
                    asyncio.create_task(self._listen())
                    listening = True
                if self.config["sleep"] and wait_ms >= NAP_MS and not self.runs.known:
                    part("sleep").sleep(self, wait_ms)
            except MemoryError:
                wait_ms = STARVED_PAUSE_MS  # Then once more.
            try:
                await asyncio.sleep_ms(wait_ms)
            except (asyncio.CancelledError, MemoryError):
                pass  # The former is `_wake`.

    def _listen(self):
        # asyncio has no public way to wait for a datagram; its own ThreadSafeFlag does it like this.
        while True:
            try:
                yield asyncio.core._io_queue.queue_read(self.session.client.sock)
            except MemoryError:
                yield from asyncio.sleep_ms(STARVED_PAUSE_MS)
            self._wake()

    def _wake(self):
        """Something has happened that the next step should see. Idempotent."""
        if self._stepping:
            self.again = True
        else:
            try:
                self._ticker.cancel()
            except MemoryError:
                pass  # Then the step sees it that is due by itself.

    def step(self):
        """Do what can be done now; return for how many milliseconds nothing will be due."""
        if self._stepping:
            return 0
        self._stepping = True
        self.again = False
        self.now = at = now()
        if self.watchdog is not None:
            self.watchdog.feed()
        try:
            while self._over:
                run, outcome = self._over[0]
                self.runs.ended(run, *outcome)
                self._over.pop(0)
                self.session.soon(at)
            due = min(self.session.step(at), self.runs.due(at), at + 60000)
        except MemoryError:
            # Orders and answers come again; what has been begun is gone on with in the next step.
            gc.collect()
            self.again = False
            if at - self._starved_at > STARVED_MS:
                self._starved_at = at
                self._starved = 0
            self._starved += 1
            if self._starved >= STARVED_STEPS:
                self._starved = 0
                if not self.runs.starve() and hasattr(self.machine, "reset"):
                    # No task takes it: what is free is in too small pieces. The journal knows how to go on.
                    self.machine.reset()
            due = at + STARVED_PAUSE_MS
        except Exception as error:
            # A bug of ours, or a file system that is damaged: the tasks that run must not pay for it.
            sys.print_exception(error)
            self.again = False
            due = at + 1000
        finally:
            self._stepping = False
        return 0 if self.again else max(0, int(due) - at)

    # --- what the session asks of us ----------------------------------------------------------

    def greeting(self):
        """Return Register."""
        return part("greeting").register(self)

    def opened(self, name):
        """A session is open."""
        self.session_name = name
        if self.fetcher is not None:
            self.fetcher.known = False
        self.journal.write([103, name], self)

    def take(self, message, raw):
        """Take a message of the master."""
        kind = message[0]
        if kind == 4:
            self.runs.away(message[3] if len(message) > 3 else 0)
        elif kind == 7:
            self.runs.acknowledge(message)
        elif kind == 8:
            part("orders").launch(self, message, raw)
        elif kind == 9:
            part("orders").kill(self, message)
        elif kind == 14:
            if self._logs_service is None:
                self._logs_service = part("logs_service").LogsService(self.rings)
            self._logs_service.get(message)
        elif kind == 2:
            self._registered(*message[4:6])
        elif kind == 52:
            part("orders").disown(self)

    def _registered(self, master_id="", away_s=0):
        if master_id != self.master_id:
            foreign = self.master_id and self.runs.known
            self.master_id = master_id
            self.journal.write([102, master_id], self)
            if foreign:
                # Other books number their tasks anew: ours would be taken for theirs.
                part("orders").disown(self)
                self.session.leave(self.now)
                return
        self.runs.came(away_s)

    def left(self):
        """The session is over."""
        self._logs_service = None
        self.runs.left()

    def has_words(self, at):
        """Return whether `say` would say something."""
        return self.runs.has_words(at) or (
            self._logs_service is not None and self._logs_service.has_words()
        )

    def say(self, buf, at, time_ms):
        """Write what is to be said into `buf` from `at`; return where it ends."""
        at = self.runs.say(buf, at, time_ms)
        if self._logs_service is not None:
            at = self._logs_service.say(buf, at)
            if not self._logs_service.streams:
                self._logs_service = None
        return at

    # --- what the runs ask of us --------------------------------------------------------------

    def blob_path(self, blob):
        """Return where a blob is, or None."""
        return blob_cache.path(self.config["dir"] + "/blobs", blob)

    def want(self, blob):
        """Fetch a blob."""
        if self.fetcher is None:
            self.fetcher = part("blobs").Fetcher(self.config, self._arrived, self.runs.in_use)
        if blob not in self.fetcher.wanted:
            self.fetcher.wanted.append(blob)

    def unwant(self, blob):
        """Nobody needs a blob any more. Idempotent."""
        if self.fetcher is not None:
            self.fetcher.unwant(blob)
            if not self.fetcher.wanted:
                self.fetcher = None

    def _arrived(self, blob, reason, message):
        if not self.fetcher.wanted:
            self.fetcher = None
        self.runs.arrived(blob, reason, message)

    def start(self, run, launch):
        """Start a run and return its job."""
        if self._runner is None:
            self._runner = part("runner")
        return self._runner.Job(self, run, launch)

    def run_ended(self, run, outcome):
        """A job is over."""
        self._over.append((run, outcome))
        self._wake()

    def ended(self, run):
        """An attempt is over."""
        for ring in self.rings:
            if ring.key == (run.task_id, run.attempt):
                ring.live = False
