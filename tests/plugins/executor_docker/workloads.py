"""What the tests of the docker executor run."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, Final

from edgerm_core.ids import BlobId, TaskId
from edgerm_core.interfaces import TaskLaunch
from edgerm_core.resources import Resources
from edgerm_core.tasks import Implementation, Volume
from edgerm_core.testing.contracts.executor import Workloads

from .engine import IMAGE

_task_ids = itertools.count(1)

DEAF: Final = "trap '' TERM; echo deaf; while :; do sleep 1; done"
"""Ignores SIGTERM itself; its sleeps do not."""

MARK: Final = "EDGERM_TEST_RUN"


def launch(
    *args: str | int | float,
    resources: str = "",
    env: dict[str, str] | None = None,
    blob_path: Path | None = None,
    volumes: tuple[tuple[Volume, Path], ...] = (),
    device_nodes: tuple[str, ...] = (),
    task_id: int | None = None,
    image: str = IMAGE,
    **options: Any,
) -> TaskLaunch:
    """Return a launch with a task id of its own; further keywords are options."""
    task = TaskId(next(_task_ids) if task_id is None else task_id)
    return TaskLaunch(
        task_id=task,
        attempt=1,
        restarts=0,
        name=f"task-{task}",
        implementation=Implementation(
            "docker",
            blob=BlobId(bytes(32)) if blob_path else None,
            args=args,
            options={"image": image, **options},
        ),
        blob_path=blob_path,
        resources=Resources.parse(resources),
        env={MARK: f"{os.getpid()}-{task}", **(env or {})},
        volumes=volumes,
        device_nodes=device_nodes,
    )


def shell(text: str, **kwargs: Any) -> TaskLaunch:
    """Return a launch of a shell text."""
    return launch("sh", "-c", text, **kwargs)


def living(run: TaskLaunch) -> list[int]:
    """Return the live processes whose environment is that of the run."""
    mark = f"{MARK}={run.env[MARK]}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


class DockerWorkloads(Workloads):
    """The contract suite's situations as containers."""

    def prints(self, text: str) -> TaskLaunch:
        return launch("printf", "%s", text)

    def exits(self, code: int) -> TaskLaunch:
        return shell(f"exit {code}")

    def runs(self) -> TaskLaunch:
        # Process 1 hears only what it listens to, and not every engine has an init.
        return shell("trap 'exit 0' TERM; sleep 600 & wait")

    def ignores_stop(self) -> TaskLaunch:
        return shell(DEAF)

    def cannot_start(self) -> TaskLaunch:
        return launch("no-such-command", init=False)

    def bad_options(self) -> TaskLaunch:
        return launch("true", colour="blue")

    def prints_much(self, total_bytes: int) -> TaskLaunch:
        return shell(f"yes 0123456789abcdef | head -c {total_bytes}; echo; echo end")

    def prints_env(self, name: str, value: str) -> TaskLaunch:
        return shell(f'echo "${name}"', env={name: value})

    def returns(self, result: bytes) -> TaskLaunch:
        return shell(f'printf {result.decode()} > "$EDGERM_RESULT_FILE"')

    def exceeds_memory(self, limit_mib: int) -> TaskLaunch:
        return shell("x=a; while :; do x=$x$x; done", resources=f"mem:{limit_mib}")

    def alive(self, launch: TaskLaunch) -> bool:
        return bool(living(launch))
