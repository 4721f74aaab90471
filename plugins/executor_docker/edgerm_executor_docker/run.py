"""One container of ours: what is saved of it, and what is known of it now."""

from __future__ import annotations

from typing import Final

import anyio
import msgspec

from edgerm_core.errors import TaskLost
from edgerm_core.interfaces import TaskHandle
from edgerm_core.tasks import ExitResult
from edgerm_executor_docker.exits import ExitRecord
from edgerm_executor_docker.fingerprint import NAME
from edgerm_executor_docker.output import Output

HANDLE_VERSION: Final = 1


class RunData(msgspec.Struct, frozen=True):
    """A task handle's data: all that is needed to find the run again. Nothing secret.

    Attributes:
        container: the engine's id of it.
        name: the container's name.
        log_dir, log_limit_bytes: its log rings.
        stdout_base, stderr_base: how many bytes had been in the rings before it.
        result_path: where it leaves its result, on the machine.
        mem_limit_bytes: for the sentence at its end.
        stop_signal: what asks it to end; empty: SIGTERM.
        network: its network.
        oom_kills: how many processes the kernel had killed for memory when it started.
        boot, engine: on which boot of the machine, and under which run of the engine, it was started.
    """

    container: str
    name: str
    log_dir: str
    log_limit_bytes: int
    stdout_base: int
    stderr_base: int
    result_path: str
    mem_limit_bytes: int | None = None
    stop_signal: str = ""
    network: str = ""
    oom_kills: int = 0
    boot: str = ""
    engine: str = ""


class Run:
    """What is known of one container.

    Attributes:
        data: what is saved of it.
        output: copies what it prints.
        ended: set once `record` is there.
        record: how it ended.
        result: the answer to `wait`, once somebody has waited.
        out_of_memory: whether the engine has told of a kill for memory.
        stopping: whether we have asked it to end.
        killed: whether we have sent it SIGKILL.
        pid: of its first process; 0: not known yet.
    """

    def __init__(self, data: RunData, output: Output) -> None:
        self.data = data
        self.output = output
        self.ended = anyio.Event()
        self.record: ExitRecord | None = None
        self.result: ExitResult | None = None
        self.out_of_memory = False
        self.stopping = False
        self.killed = False
        self.pid = 0

    def end(self, record: ExitRecord) -> None:
        """Note how it ended. What is noted first counts."""
        if self.record is None:
            self.record = record
            self.ended.set()


def make_handle(data: RunData) -> TaskHandle:
    """Return the handle to be saved."""
    return TaskHandle(NAME, HANDLE_VERSION, msgspec.to_builtins(data))


def read_handle(handle: TaskHandle) -> RunData:
    """Return the data of a handle.

    Raises:
        TaskLost: if it is not a handle of ours, or of a version that we do not know.
    """
    try:
        if handle.version != HANDLE_VERSION:
            raise TaskLost(
                f"the saved handle has layout {handle.version}, this executor reads {HANDLE_VERSION}"
            )
        return msgspec.convert(handle.data, RunData)
    except msgspec.ValidationError as error:
        raise TaskLost(f"the saved handle is damaged: {error}") from error
