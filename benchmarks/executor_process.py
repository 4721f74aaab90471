"""What the process executor costs: short tasks per second and the keeper's memory.

    python benchmarks/executor_process.py [TASKS]

`/bin/true` is started, waited for and destroyed, eight at once, and beside it, in the same run and
alternating, started by bare posix_spawn and waited for by pidfd: the ratio says what durable handles,
log rings and control groups cost, whatever the machine is.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

import anyio
from edgerm_executor_process.config import ProcessConfig
from edgerm_executor_process.executor import ProcessExecutor

from edgerm_core.ids import TaskId
from edgerm_core.interfaces import TaskLaunch
from edgerm_core.resources import Resources
from edgerm_core.tasks import Implementation
from edgerm_core.testing.sandboxes import DirectorySandbox

AT_ONCE = 8
ROUNDS = 4


async def one_task(executor: ProcessExecutor, base: Path, number: int, resources: Resources) -> None:
    launch = TaskLaunch(
        TaskId(number), 1, 0, "true", Implementation("process", args=("/bin/true",)), None, resources, {}
    )
    handle = await executor.start(launch, DirectorySandbox(base / str(number)))
    result = await executor.wait(handle)
    assert result.ok, result.message
    await executor.destroy(handle)


async def through_executor(
    executor: ProcessExecutor, base: Path, first: int, count: int, resources: Resources
) -> float:
    """Return tasks per second."""
    numbers = iter(range(first, first + count))

    async def work() -> None:
        for number in numbers:
            await one_task(executor, base, number, resources)

    began = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(work)
    return count / (time.perf_counter() - began)


async def through_posix_spawn(count: int) -> float:
    """Return processes per second."""
    numbers = iter(range(count))

    async def work() -> None:
        for _ in numbers:
            pid = os.posix_spawn("/bin/true", ["/bin/true"], {})  # noqa: ASYNC221 (what is measured)
            pidfd = os.pidfd_open(pid)
            await anyio.wait_readable(pidfd)
            os.waitpid(pid, 0)  # noqa: ASYNC222 (it has ended)
            os.close(pidfd)

    began = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(work)
    return count / (time.perf_counter() - began)


def memory_kib(pid: int) -> tuple[int, int]:
    """Return resident memory, and the part of it that is not file pages shared with the agent."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]), int(status.split("RssAnon:")[1].split()[0])


async def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        executor = ProcessExecutor(ProcessConfig(state_dir=str(base / "executor")))
        await one_task(executor, base, 1, Resources())
        connection = await executor._keeper.connection()
        keeper = (await connection.request("hello"))["pid"]
        fresh = memory_kib(keeper)
        number = 2
        bare: list[float] = []
        plain: list[float] = []
        limited: list[float] = []
        for _ in range(ROUNDS):
            bare.append(await through_posix_spawn(count))
            plain.append(await through_executor(executor, base, number, count, Resources()))
            number += count
            resources = Resources.parse("cpus:0.5;mem:64")
            limited.append(await through_executor(executor, base, number, count, resources))
            number += count
        print(f"{count} x /bin/true, {AT_ONCE} at once, best of {ROUNDS} rounds")
        for name, rates in (
            ("bare posix_spawn and pidfd", bare),
            ("executor", plain),
            ("executor, cpus and mem limited", limited),
        ):
            print(f"{name:32}{max(rates):7.0f} per s   {max(rates) / max(bare):.2f} of bare")
        print(f"keeper's memory: {fresh[0]} KiB resident, {fresh[1]} KiB its own; ", end="")
        now = memory_kib(keeper)
        print(f"after {number - 1} tasks {now[0]} and {now[1]} KiB")
        await executor.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 200)
