"""What the tests run."""

import itertools
import os
from pathlib import Path

from edgerm_core.ids import BlobId, TaskId
from edgerm_core.interfaces import TaskLaunch
from edgerm_core.resources import Resources
from edgerm_core.tasks import Implementation

_task_ids = itertools.count(1)

MARK = "EDGERM_TEST_RUN"


def launch(
    script: str | None,
    *args: str,
    env: dict[str, str] | None = None,
    module: Path | None = None,
    grace_s: float = 5.0,
    **options: object,
) -> TaskLaunch:
    """Return a launch with a task id of its own."""
    number = next(_task_ids)
    if script is not None:
        options["script"] = script
    return TaskLaunch(
        TaskId(number),
        1,
        0,
        f"t{number}",
        Implementation("script", BlobId(bytes(32)) if module else None, args, options),
        module,
        Resources(),
        {MARK: f"{os.getpid()}-{number}", **(env or {})},
        kill_grace_s=grace_s,
    )


def living(launch: TaskLaunch) -> list[int]:
    """Return the live processes that have the environment of the run."""
    mark = f"{MARK}={launch.env[MARK]}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue  # It has just ended.
    return found
