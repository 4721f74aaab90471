"""Starts one process: everything between fork and exec. Part of the keeper.

fork and exec are used rather than posix_spawn because the child has to join its control groups before
its program begins; the keeper is small and has one thread, so its fork is cheap and safe.
"""

# ruff: noqa: PTH110, PTH112, PTH113, PTH118
from __future__ import annotations

import errno
import os
import resource
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

BUSY_TRIES: Final = 10
"""A program that has just been written may still be open for writing in some child for a moment."""

BUSY_WAIT_S: Final = 0.02

FAILED_EXIT: Final = 127
"""Of a child that never became the task; nobody sees it but the keeper."""

task_file_limit: tuple[int, int] | None = None
"""Limit of open files that tasks get, where the keeper has raised its own."""


class StartError(Exception):
    """A process cannot be started.

    Attributes:
        recoverable: whether another try may succeed.
        lost: whether the task may have begun all the same.
    """

    def __init__(self, message: str, recoverable: bool = False, lost: bool = False) -> None:
        super().__init__(message)
        self.recoverable = recoverable
        self.lost = lost


def find_program(name: str, env: dict[str, str], work_dir: str) -> str:
    """Return the path of a command, looked up in the task's own `PATH`.

    Raises:
        StartError: if it is in none of the directories, or is not a program.
    """
    if "/" in name:
        path = os.path.join(work_dir, name)
        if not os.path.exists(path):
            raise StartError(f"command {name} is not there: no such file on this agent")
        _check_program(name, path)
        return (
            name  # Relative to the working directory, which the task's user may not reach by its full path.
        )
    for directory in env["PATH"].split(":"):
        path = os.path.join(work_dir, directory or ".", name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise StartError(
        f"command {name} is not found on this agent in PATH={env['PATH']}: is it installed there?"
    )


def _check_program(name: str, path: str) -> None:
    if os.path.isdir(path):
        raise StartError(f"command {name} is a directory, not a program")
    if not os.access(path, os.X_OK):
        raise StartError(
            f"command {name} is not executable: chmod +x it, or set the file's executable flag"
        )


def spawn(
    program: str,
    argv: list[str],
    env: dict[str, str],
    work_dir: str,
    outputs: tuple[int, int],
    procs_files: list[str],
    ids: tuple[int, int, list[int]] | None,
) -> tuple[int, int]:
    """Fork and return (pid, file descriptor that tells how the exec went) without waiting for it.

    The descriptor reaches its end empty when the program runs; otherwise `explain` makes a sentence of
    what it holds.

    Parameters:
        outputs: descriptors for standard output and error; standard input is /dev/null.
        procs_files: of the control groups to join.
        ids: user, group and further groups to become; None: stay.

    Raises:
        OSError: if the system can start no process now.
    """
    told, tell = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(told)
        os.close(tell)
        raise
    if pid == 0:
        _become(program, argv, env, work_dir, outputs, procs_files, ids, tell)
    os.close(tell)
    os.set_blocking(told, False)
    return pid, told


def _become(
    program: str,
    argv: list[str],
    env: dict[str, str],
    work_dir: str,
    outputs: tuple[int, int],
    procs_files: list[str],
    ids: tuple[int, int, list[int]] | None,
    tell: int,
) -> NoReturn:
    """Run in the child; never returns."""
    step = "group"
    try:
        os.setsid()
        for path in procs_files:
            file = os.open(path, os.O_WRONLY)
            os.write(file, b"0")
            os.close(file)
        step = "io"
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        # All other descriptors close themselves on exec (PEP 446).
        # What is ignored stays so across exec: by Python itself, by `keeper.main`, and by who started the
        # agent, such as a shell that puts it into the background.
        for each in signal.valid_signals():
            if signal.getsignal(each) is signal.SIG_IGN:
                signal.signal(each, signal.SIG_DFL)
        if task_file_limit is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, task_file_limit)
        os.umask(0o022)
        step = "work_dir"
        os.chdir(work_dir)
        if ids is not None:
            step = "user"
            os.setgroups(ids[2])
            os.setgid(ids[1])
            os.setuid(ids[0])
        step = "exec"
        arguments = [os.fsencode(arg) for arg in argv]
        variables = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
        for _ in range(BUSY_TRIES):
            try:
                os.execve(program, arguments, variables)
            except OSError as error:
                if error.errno != errno.ETXTBSY:
                    raise
            time.sleep(BUSY_WAIT_S)
        raise OSError(errno.ETXTBSY, os.strerror(errno.ETXTBSY))
    except BaseException as error:
        number = error.errno if isinstance(error, OSError) and error.errno else 0
        os.write(tell, f"{step} {number} {error}"[:1000].encode("utf-8", "replace"))
    finally:
        os._exit(FAILED_EXIT)


_RECOVERABLE: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.ETXTBSY, errno.EMFILE, errno.ENFILE})


def explain(told: bytes, name: str, work_dir: str) -> StartError:
    """Return the error for what a child said before it gave up."""
    step, number_text, text = [*told.decode("utf-8", "replace").split(" ", 2), "0", ""][:3]
    number = int(number_text) if number_text.isdigit() else 0
    recoverable = number in _RECOVERABLE
    if step == "exec":
        if number == errno.ENOEXEC:
            return StartError(
                f"command {name} is not a program for this machine: built for another processor, or a "
                f"script whose first line does not begin with #!"
            )
        if number == errno.ENOENT:
            return StartError(
                f"command {name} is there, but not what it needs: the interpreter of its first line or "
                f"its loader is missing on this agent"
            )
        if number == errno.EACCES:
            return StartError(f"command {name} may not be executed: file or mount permissions forbid it")
        if number == errno.E2BIG:
            return StartError(
                f"command {name}: arguments and environment are larger than this kernel allows"
            )
        return StartError(f"command {name} cannot be executed: {text}", recoverable)
    if step == "work_dir":
        return StartError(
            f"working directory {work_dir} cannot be entered: {os.strerror(number)}", recoverable
        )
    if step == "user":
        return StartError(f"cannot become the user of [executor.process]: {text}", recoverable)
    if step == "group":
        return StartError(f"cannot join the task's control group: {text}", recoverable)
    return StartError(f"the process cannot be set up: {text}", recoverable)
