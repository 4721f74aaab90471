"""From a task's implementation to the command line: the options, checked."""

from __future__ import annotations

import msgspec

from edgerm_core.errors import SpecError
from edgerm_core.tasks import Implementation

PROGRAM_NAME = "program"
"""Name in the working directory of a program that came as a blob."""


class ProcessOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of an implementation for `process`.

    Attributes:
        shell: text for `/bin/sh -c`, instead of `args`.
        pids_limit: most processes and threads at the same time; None: the operator's default.
    """

    shell: str | None = None
    pids_limit: int | None = None


def read_options(name: str, implementation: Implementation) -> ProcessOptions:
    """Return the checked options of task `name`.

    Raises:
        SpecError: naming the option and what was expected.
    """
    try:
        options = msgspec.convert(implementation.options, ProcessOptions)
    except msgspec.ValidationError as error:
        raise SpecError(
            f"task {name}: options of executor process: {error}; known are shell and pids_limit"
        ) from error
    if options.pids_limit is not None and not 1 <= options.pids_limit <= 1_000_000:
        raise SpecError(f"task {name}: pids_limit must be 1 to 1000000, not {options.pids_limit}")
    return options


def build_argv(name: str, implementation: Implementation, options: ProcessOptions) -> list[str]:
    """Return the command line of task `name`.

    Raises:
        SpecError: if there is no command, there are two, or it holds a NUL.
    """
    args = [str(arg) for arg in implementation.args]
    if options.shell is not None:
        if args or implementation.blob is not None:
            raise SpecError(f"task {name}: give either the option shell, or args and blob, not both")
        if not options.shell.strip():
            raise SpecError(f"task {name}: the option shell is empty")
        argv = ["/bin/sh", "-c", options.shell]
    elif implementation.blob is not None:
        argv = [f"./{PROGRAM_NAME}", *args]
    elif args and args[0]:
        argv = args
    else:
        raise SpecError(f"task {name}: no command: give args, the option shell, or a blob to run")
    if any("\0" in arg for arg in argv):
        raise SpecError(f"task {name}: an argument holds a NUL, which no process can be given")
    return argv
