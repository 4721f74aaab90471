"""The section `[executor.script]`, and what a task may say."""

from __future__ import annotations

import msgspec
from edgerm_core.config import explain_validation
from edgerm_core.errors import SpecError
from edgerm_core.interfaces import TaskLaunch

MAX_TIME_LIMIT_S = 30 * 86_400

INTERPRETERS = {"sh": "sh", "micropython": "micropython"}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[executor.script]`.

    Attributes:
        time_limit_s: the most a task may ask for, and what it gets if it asks for nothing.
        search_path: where interpreters and their commands are looked for; a task's own PATH wins.
        interpreters: name in options to command.
    """

    time_limit_s: float = 600.0
    search_path: str = "/usr/local/bin:/usr/bin:/bin"
    interpreters: dict[str, str] = msgspec.field(default_factory=INTERPRETERS.copy)

    def __post_init__(self) -> None:
        if not 0 < self.time_limit_s <= MAX_TIME_LIMIT_S:
            raise ValueError(f"time_limit_s must be more than 0, and at most {MAX_TIME_LIMIT_S}")
        if not all(part.startswith("/") for part in self.search_path.split(":")):
            raise ValueError("search_path must be absolute directories, joined by ':'")


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of an implementation.

    Attributes:
        script: the text; None: the task's module is run.
        interpreter: a key of the config's `interpreters`.
        time_limit_s: None: as much as the agent allows.
    """

    script: str | None = None
    interpreter: str = "sh"
    time_limit_s: float | None = None


def read_options(launch: TaskLaunch, config: Config) -> Options:
    """Return the options of a launch, the time limit filled in.

    Raises:
        SpecError: if they make no sense.
    """
    try:
        options = msgspec.convert(launch.implementation.options, Options)
    except msgspec.ValidationError as error:
        path, problem = explain_validation(error)
        raise SpecError(f"executor script: options.{path}: {problem}") from error
    if (options.script is None) == (launch.blob_path is None):
        raise SpecError("executor script: give either options.script or a module")
    if options.interpreter not in config.interpreters:
        known = ", ".join(sorted(config.interpreters))
        raise SpecError(f"executor script: interpreter {options.interpreter!r} is none of {known}")
    limit_s = config.time_limit_s if options.time_limit_s is None else options.time_limit_s
    if not 0 < limit_s <= config.time_limit_s:
        most = f"{config.time_limit_s:g} at most"
        raise SpecError(f"executor script: time_limit_s must be more than 0, and {most}")
    return msgspec.structs.replace(options, time_limit_s=limit_s)
