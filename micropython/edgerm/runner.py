"""Runs one task: calls its function, resumes it, stops it, and says how it ended."""

import asyncio
import builtins
import gc
import time

from edgerm import now, part
from edgerm.logs import open_ring

PUMP_MS = 10
"""How often a plain function that asks lets the agent work."""

_print = print
_current = None
"""The job whose code is being executed now."""

_pumped_at = 0


def _captured_print(*args, **kwargs):
    if _current is not None and "file" not in kwargs:
        kwargs["file"] = _current.log
    _print(*args, **kwargs)


# Tasks, and what they import, find `print` here, and what they print is theirs.
builtins.print = _captured_print

# Programs that have a board for themselves like to make a new loop; here the agent would not be in it.
asyncio.new_event_loop = asyncio.get_event_loop


class Context:
    """What a task's function gets as its first argument.

    Attributes:
        task_id, attempt, restarts: which run; `(attempt, restarts)` is its fence at devices.
        name, index, env: of the task.
    """

    def __init__(self, job, agent, run, launch):
        self._job = job
        self._agent = agent
        self._granted = launch[6][3] if len(launch[6]) > 3 else {}
        self.task_id = run.task_id
        self.attempt = run.attempt
        self.restarts = run.restarts
        self.name = launch[4]
        self.env = launch[7]
        self.index = launch[14]
        for device in self._granted:
            agent.devices.reserve(device, self.task_id, (self.attempt, self.restarts))

    def read(self, device, channel):
        """Return a channel's value in the unit that the device names.

        Raises:
            OSError, ValueError: if the device or the channel is not there, or reading fails.
        """
        return self._device(device).read(channel)

    def write(self, device, channel, value):
        """Set a channel.

        Raises:
            OSError, ValueError: if a newer run of the task has had the device, or writing fails.
        """
        driver = self._device(device)
        self._agent.devices.check(device, self.task_id, (self.attempt, self.restarts))
        driver.write(channel, value)

    def cancelled(self):
        """Return whether the task should end. Long plain functions ask now and then, and so let the board
        talk to its master."""
        global _current, _pumped_at
        if now() - _pumped_at >= PUMP_MS:
            job, _current = _current, None
            try:
                self._agent.step()
            finally:
                _current = job
            _pumped_at = now()
        return self._job.stopping

    def sleep(self, seconds):
        """Wait, in a plain function; a coroutine awaits `asyncio.sleep` instead.

        Raises:
            asyncio.CancelledError: if the task should end.
        """
        until = now() + int(seconds * 1000)
        while not self.cancelled():
            left = until - now()
            if left <= 0:
                return
            time.sleep_ms(min(left, PUMP_MS))
        raise asyncio.CancelledError

    def _device(self, device):
        if self._job.abandoned:
            raise asyncio.CancelledError
        if device not in self._granted:
            raise ValueError("the task was not granted device %s" % device)
        return self._agent.devices.drivers[device]


class Job:
    """One run.

    Attributes:
        stopping: it has been asked to end.
        abandoned: its grace period is over; it is not resumed any more.
        log: takes what it prints.
    """

    def __init__(self, agent, run, launch):
        self._agent = agent
        self._run = run
        self._begun = self._executing = self.stopping = self.abandoned = False
        self.log = open_ring(agent.rings, (run.task_id, run.attempt), agent.config["log_bytes"])
        self._task = asyncio.create_task(self._drive(launch[5], Context(self, agent, run, launch)))

    def stop(self, hard):
        """Throw CancelledError into it where it waits; with `hard` it gets no further turn."""
        self.stopping = True
        self.abandoned = self.abandoned or hard
        # One that has not begun sees it when it does; one that is being executed, when it asks.
        if self._begun and not self._executing:
            self._task.cancel()

    def _drive(self, implementation, context):
        """Resume the task's coroutine by hand instead of awaiting it: so each of its turns is known as its
        own, and after the grace period there is none any more, whatever it does with CancelledError."""
        self._begun = True
        outcome = (False, "killed-by-request")
        executor = function = value = error = raised = None
        failure = "launch-failed"
        try:
            if not self.stopping:
                blob = implementation.get("blob")
                path = blob and self._agent.blob_path(blob)
                executor = part("executors").table()[implementation["executor"]]
                failure = executor.failure
                function, context = self._turn(executor.load, (path, implementation, context))
                executor = implementation = None  # What is not needed any more must not take up memory.
                value = self._turn(function, context)
                function = context = None
                if type(value) is _generator:
                    context = value
                    while True:
                        try:
                            value = self._turn(_resume, (context, error))
                        except StopIteration as end:
                            value = end.value
                            break
                        error = None
                        try:
                            if value is None:
                                yield  # An awaitable of asyncio, which has put this job into its queue.
                            else:
                                yield from asyncio.sleep_ms(int(value * 1000))
                        except BaseException as thrown:
                            error = thrown
                        if self.abandoned:
                            raise asyncio.CancelledError
                outcome = (True, "exited", "", 0, part("outcome").result(value))
        except KeyboardInterrupt:
            raise
        except BaseException as what:
            raised = what
        # The run's memory goes before anything else needs some.
        executor = function = value = error = context = implementation = None
        gc.collect()
        if raised is not None and not (self.stopping and isinstance(raised, asyncio.CancelledError)):
            try:
                outcome = part("outcome").failed(raised, failure)
            except MemoryError:
                outcome = (False, "out-of-memory")
        self._agent.run_ended(self._run, outcome)

    def _turn(self, function, args):
        global _current
        _current = self
        self._executing = True
        try:
            return function(*args)
        finally:
            self._executing = False
            _current = None


def _resume(coroutine, error):
    return coroutine.send(None) if error is None else coroutine.throw(error)


_generator = type((lambda: (yield))())
