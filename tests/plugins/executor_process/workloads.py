"""What the tests of the process executor run."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, Final

from edgerm_core.ids import BlobId, TaskId
from edgerm_core.interfaces import TaskLaunch
from edgerm_core.resources import Resources
from edgerm_core.tasks import Implementation
from edgerm_core.testing.contracts.executor import Workloads

_task_ids = itertools.count(1)

DEAF: Final = "trap '' TERM; echo deaf; while :; do sleep 1; done"
"""Ignores SIGTERM itself; its sleeps do not."""

FAMILY: Final = """
sleep 601 &
setsid sleep 602 &
(setsid sh -c 'sleep 603 & exec sleep 604' &) &
python3 -c 'import os, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
time.sleep(605)' &
wait $!
echo ready
"""
"""Children, a child in its own session, grandchildren whose parents are gone, a classic daemon."""


def launch(
    *args: str | int | float,
    resources: str = "",
    env: dict[str, str] | None = None,
    blob_path: Path | None = None,
    **options: Any,
) -> TaskLaunch:
    """Return a launch with a task id of its own."""
    task_id = TaskId(next(_task_ids))
    return TaskLaunch(
        task_id=task_id,
        attempt=1,
        restarts=0,
        name=f"task-{task_id}",
        implementation=Implementation(
            "process", blob=BlobId(bytes(32)) if blob_path else None, args=args, options=options
        ),
        blob_path=blob_path,
        resources=Resources.parse(resources),
        env={"EDGERM_TEST_RUN": f"{os.getpid()}-{task_id}", **(env or {})},
    )


def shell(text: str, **kwargs: Any) -> TaskLaunch:
    """Return a launch of a shell text."""
    return launch(shell=text, **kwargs)


def living(run: TaskLaunch) -> list[int]:
    """Return the live processes whose environment is that of the run."""
    mark = f"EDGERM_TEST_RUN={run.env['EDGERM_TEST_RUN']}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


class ProcessWorkloads(Workloads):
    """The contract suite's situations as commands."""

    def prints(self, text: str) -> TaskLaunch:
        return launch("printf", "%s", text)

    def exits(self, code: int) -> TaskLaunch:
        return launch("/bin/sh", "-c", f"exit {code}")

    def runs(self) -> TaskLaunch:
        return launch("sleep", 600)

    def ignores_stop(self) -> TaskLaunch:
        return shell(DEAF)

    def cannot_start(self) -> TaskLaunch:
        return launch("no-such-command")

    def bad_options(self) -> TaskLaunch:
        return launch("true", colour="blue")

    def prints_much(self, total_bytes: int) -> TaskLaunch:
        return shell(f"yes 0123456789abcdef | head -c {total_bytes}; echo; echo end")

    def prints_env(self, name: str, value: str) -> TaskLaunch:
        return launch("printenv", name, env={name: value})

    def returns(self, result: bytes) -> TaskLaunch:
        return shell(f'printf {result.decode()} > "$EDGERM_RESULT_FILE"')

    def exceeds_memory(self, limit_mib: int) -> TaskLaunch:
        hog = "x = bytearray(200 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1"
        return launch("python3", "-c", hog, resources=f"mem:{limit_mib}")

    def alive(self, launch: TaskLaunch) -> bool:
        return bool(living(launch))
