"""The keeper: one small process beside each agent that holds its tasks.

    python -m edgerm_executor_process.keeper BASE_DIR

It outlives the agent, so tasks, their exit codes and their output survive an agent that is updated,
restarted or killed. It starts processes, reads their output into bounded rings, reaps them, writes
down how they ended and tells every agent process that is connected. One thread and one selector; only
the standard library, as little of it as possible, since it stays in memory on small machines.

Protocol, over the unix socket `keeper.sock` in BASE_DIR (mode 0600): one JSON object a line. Requests
carry `id` and `op` (start, attach, stop, destroy, stats, runs, hello); the answer repeats `id`. When a run
ends everybody who is connected gets `{"exit": key, "record": ...}`. Every request may be repeated.

The keeper ends when nothing runs and nobody has been connected for a while. It daemonises itself: the
command above returns 0 when the socket is ready, 3 when another keeper owns BASE_DIR.
"""

# ruff: noqa: PTH108
from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time

from edgerm_executor_process import processes, spawn
from edgerm_executor_process.group import Group, remove_parent
from edgerm_executor_process.runs import ENDED, ENDING, RUNNING, STARTING, Output, Run, read_exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

PROTOCOL: Final = 1
"""Of the socket. An agent that was updated may meet the keeper of its predecessor."""

SOCKET_NAME: Final = "keeper.sock"
LOCK_NAME: Final = "keeper.lock"
ALREADY_RUNNING_EXIT: Final = 3

IDLE_S: Final = 5.0
"""Life without runs and without an agent: longer than an agent takes to restart on a slow gateway."""

MAX_REQUEST_BYTES: Final = 4 << 20
"""Arguments and environment have limits of 192 KiB; JSON may spell one byte with six."""

MAX_UNSENT_BYTES: Final = 8 << 20
"""For an agent that does not read; beyond it the connection is dropped, and it attaches anew."""

MAX_CLIENTS: Final = 16

_PR_SET_CHILD_SUBREAPER: Final = 36


class Client:
    """A connected agent process: its socket, half a request, and answers that wait."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = bytearray()
        self.unsent = bytearray()


class Keeper:
    """All runs of one agent, and the loop that serves them."""

    def __init__(self, listener: socket.socket) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        self._clients: list[Client] = []
        self._runs: dict[str, Run] = {}
        self._by_pid: dict[int, Run] = {}
        self._pidfds: dict[str, int] = {}
        self._group_parents: set[str] = set()
        #: Groups of forgotten runs in which something was still dying, such as hundreds of processes of
        #: a fork bomb that share a small part of a processor.
        self._unremoved: list[Group] = []
        self._waiting: dict[str, list[tuple[Client, int, str]]] = {}
        self._idle_since = time.monotonic()
        self._boot_id = processes.boot_id()
        self._operations: dict[str, Callable[[Client, dict[str, Any]], dict[str, Any] | None]] = {
            "hello": self._hello,
            "start": self._start,
            "attach": self._attach,
            "stop": self._stop,
            "destroy": self._destroy,
            "stats": self._stats,
            "runs": self._list,
        }

    def serve(self) -> None:
        """Run until there is nothing to keep."""
        woken, wake = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(woken, selectors.EVENT_READ, lambda: self._reap(woken))
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        while not self._idle():
            for key, events in self._selector.select(self._timeout()):
                if isinstance(key.data, Client):
                    self._serve_client(key.data, events)
                else:
                    key.data()
            self._tick()
        self._remove_groups()
        for parent in self._group_parents:
            remove_parent(parent)

    # --- time ---

    def _busy(self) -> bool:
        return bool(self._clients) or any(
            run.state != ENDED or not run.saved for run in self._runs.values()
        )

    def _idle(self) -> bool:
        now = time.monotonic()
        if self._busy():
            self._idle_since = now
        return now - self._idle_since >= IDLE_S

    def _timeout(self) -> float | None:
        now = time.monotonic()
        moments = [
            moment for run in self._runs.values() for moment in (run.deadline, run.next_round) if moment
        ]
        if not self._busy():
            moments.append(self._idle_since + IDLE_S)
        elif any(run.state == ENDED and not run.saved for run in self._runs.values()):
            moments.append(now + IDLE_S)
        return max(0.0, min(moments) - now) if moments else None

    def _tick(self) -> None:
        now = time.monotonic()
        for run in list(self._runs.values()):
            due = run.deadline is not None and now >= run.deadline
            again = run.next_round is not None and now >= run.next_round
            if due or again:
                run.deadline = None if due else run.deadline
                self._end(run)
            elif run.state == ENDED and not run.saved:
                run.save()

    # --- processes ---

    def _reap(self, woken: int) -> None:
        try:
            while os.read(woken, 4096):
                pass
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            run = self._by_pid.pop(pid, None)
            if run is not None:
                run.main_ended(status)
                self._end(run)

    def _end(self, run: Run) -> None:
        """Take the run one step nearer to its end; tell everybody if it is there."""
        told, outputs = run.told, [output.reader for output in run.outputs]
        if not run.end(time.monotonic()):
            return
        for descriptor in (told, *outputs):
            self._unregister(descriptor)
        pidfd = self._pidfds.pop(run.key, None)
        if pidfd is not None:
            self._unregister(pidfd)
            os.close(pidfd)
        if self._by_pid.get(run.pid) is run:  # The id of a run long gone may be another's by now.
            del self._by_pid[run.pid]
        waiting = self._waiting.pop(run.key, [])
        for client, number, operation in waiting:
            if operation == "start":
                self._send(client, {"id": number, **self._started(run)})
        if run.start_error is None:
            for client in list(self._clients):
                self._send(client, {"exit": run.key, "record": run.record})
        else:
            self._runs.pop(run.key, None)
        for client, number, operation in waiting:
            if operation == "destroy":
                self._forget(run)
                self._send(client, {"id": number})

    def _unregister(self, descriptor: int | None) -> None:
        # Descriptors that were closed are already out of epoll, but not out of the selector's table.
        if descriptor is not None:
            try:
                self._selector.unregister(descriptor)
            except KeyError:
                pass

    def _watch_outputs(self, run: Run) -> None:
        for output in run.outputs:
            if output.reader is not None:
                self._selector.register(output.reader, selectors.EVENT_READ, self._reading(output))

    def _reading(self, output: Output) -> Callable[[], None]:
        def read() -> None:
            if not output.read():
                self._unregister(output.reader)  # Nobody holds the other end any more.

        return read

    # --- operations ---

    def _hello(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        return {"protocol": PROTOCOL, "pid": os.getpid()}

    def _start(self, client: Client, request: dict[str, Any]) -> dict[str, Any] | None:
        key: str = request["run"]["key"]
        known = self._runs.get(key)
        if known is not None:
            return self._answer_start(client, request, known)
        run = Run(request["run"])
        self._group_parents |= run.group.parents()
        try:
            run.begin(request)
        except spawn.StartError as error:
            return {"error": str(error), "recoverable": error.recoverable, "lost": error.lost}
        self._runs[key] = run
        self._by_pid[run.pid] = run
        assert run.told is not None
        self._selector.register(run.told, selectors.EVENT_READ, lambda: self._exec_told(run))
        self._watch_outputs(run)
        return self._answer_start(client, request, run)

    def _answer_start(self, client: Client, request: dict[str, Any], run: Run) -> dict[str, Any] | None:
        if run.told is not None:
            self._waiting.setdefault(run.key, []).append((client, request["id"], "start"))
            return None
        return self._started(run)

    def _started(self, run: Run) -> dict[str, Any]:
        if run.start_error is not None:
            return {"error": str(run.start_error), "recoverable": run.start_error.recoverable}
        return {"pid": run.pid, "start": run.start, "boot_id": self._boot_id}

    def _exec_told(self, run: Run) -> None:
        told = run.told
        if told is None:
            return  # It ended in the same round.
        run.exec_told()
        if run.told is None:
            self._unregister(told)
        if run.state == RUNNING:
            waiting = self._waiting.pop(run.key, [])
            for client, number, operation in waiting:
                if operation == "start":
                    self._send(client, {"id": number, **self._started(run)})
                else:
                    self._waiting.setdefault(run.key, []).append((client, number, operation))
        # Otherwise the child is about to exit: its starters hear of it when it is gone altogether.

    def _attach(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        data = request["run"]
        run = self._runs.get(data["key"])
        if run is not None and run.state != ENDED:
            return {"state": "running"}
        record = run.record if run is not None else read_exit(data["key"])
        if record is not None:
            return {"state": "ended", "record": record}
        if data["boot_id"] != self._boot_id:
            return {"state": "lost"}
        return {"state": "running" if self._adopt(data) else "lost"}

    def _adopt(self, data: dict[str, Any]) -> bool:
        """Take up a run of an earlier keeper; return whether its main process is alive.

        Where it is not, what it left behind is ended.
        """
        run = Run(data)
        try:
            pidfd = os.pidfd_open(data["pid"])
        except OSError:
            pidfd = None
        self._group_parents |= run.group.parents()
        run.adopt(data["pid"], data["start"])
        alive = processes.is_same(data["pid"], data["start"])
        self._runs[run.key] = run
        self._watch_outputs(run)
        if alive and pidfd is not None:
            self._pidfds[run.key] = pidfd
            self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._adopted_ended(run))
            return True
        if pidfd is not None:
            os.close(pidfd)
        run.main_ended(None)
        self._end(run)
        return False

    def _adopted_ended(self, run: Run) -> None:
        pidfd = self._pidfds.pop(run.key, None)
        if pidfd is not None:  # Otherwise it ended in the same round.
            self._unregister(pidfd)
            os.close(pidfd)
            run.main_ended(None)
            self._end(run)

    def _stop(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        run = self._runs.get(request["key"])
        if run is not None and run.state in (STARTING, RUNNING):
            run.ask_to_end(time.monotonic() + request["grace_s"])
        return {}

    def _destroy(self, client: Client, request: dict[str, Any]) -> dict[str, Any] | None:
        data = request["run"]
        run = self._runs.get(data["key"])
        if run is None and data.get("boot_id") == self._boot_id:
            self._adopt(data)
            run = self._runs.get(data["key"])
        if run is None:
            if "group" in data:
                self._forget(Run(data))
            return {}
        if run.state != ENDED:
            self._waiting.setdefault(run.key, []).append((client, request["id"], "destroy"))
            if run.state != ENDING:
                self._end(run)
            return None
        self._forget(run)
        return {}

    def _forget(self, run: Run) -> None:
        self._runs.pop(run.key, None)
        if not run.forget():
            self._unremoved.append(run.group)
        self._remove_groups()

    def _remove_groups(self) -> None:
        self._unremoved = [group for group in self._unremoved if not group.remove()]

    def _stats(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        run = self._runs.get(request["key"])
        return {"usage": None if run is None else run.usage()}

    def _list(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        return {"keys": list(self._runs)}

    # --- clients ---

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        client = Client(connection)
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _serve_client(self, client: Client, events: int) -> None:
        if events & selectors.EVENT_WRITE and client in self._clients:
            self._flush(client)
        if not events & selectors.EVENT_READ or client not in self._clients:
            return
        try:
            data = client.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        client.received += data
        *lines, rest = client.received.split(b"\n")
        client.received = rest
        for line in lines:
            self._handle(client, line)
        if len(rest) > MAX_REQUEST_BYTES:
            self._drop(client)

    def _handle(self, client: Client, line: bytearray) -> None:
        try:
            request = json.loads(line)
            number, operation = request["id"], self._operations[request["op"]]
        except (ValueError, KeyError, TypeError):
            self._drop(client)
            return
        try:
            answer = operation(client, request)
        except (ValueError, KeyError, TypeError, OSError) as error:
            # A bad request harms nobody else; what the keeper holds goes on.
            answer = {"error": f"the keeper cannot do {request['op']}: {type(error).__name__}: {error}"}
        if answer is not None:
            self._send(client, {"id": number, **answer})

    def _send(self, client: Client, message: dict[str, Any]) -> None:
        if client not in self._clients:
            return
        client.unsent += json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
        self._flush(client)

    def _flush(self, client: Client) -> None:
        try:
            while client.unsent:
                del client.unsent[: client.connection.send(client.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if len(client.unsent) > MAX_UNSENT_BYTES:
            self._drop(client)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        self._selector.modify(client.connection, events, client)

    def _drop(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._selector.unregister(client.connection)
            client.connection.close()


def _lock() -> bool:
    """Become the only keeper of this directory, until this process and its child end."""
    descriptor = os.open(LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True  # Kept open on purpose: the lock lives as long as the descriptor.


def _listen() -> socket.socket:
    # The name is relative, since a socket's path has 108 bytes and an agent's directory may be longer.
    try:
        os.unlink(SOCKET_NAME)
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(SOCKET_NAME)
    listener.listen(MAX_CLIENTS)
    return listener


def _raise_file_limit() -> None:
    """Allow as many open files as the system lets us: each run takes two. Tasks get the old limit back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spawn.task_file_limit = (soft, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(base_dir: str) -> int:
    """Become the keeper of `base_dir`; return an exit code."""
    os.umask(0o077)
    os.chdir(base_dir)
    if not _lock():
        return ALREADY_RUNNING_EXIT
    listener = _listen()
    if os.fork():
        return 0  # Ready: whoever started us may connect.
    _raise_file_limit()
    # Orphans of tasks become ours, so that they can be found and reaped.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Keeper(listener).serve()
    os.unlink(SOCKET_NAME)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
