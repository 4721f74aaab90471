"""The keeper as a program: small, alone in its directory, gone when there is nothing to keep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from edgerm_executor_process import keeper, keeper_client
from edgerm_executor_process.executor import ProcessExecutor

from edgerm_core.testing.contracts.executor import RunStarter

from .workloads import launch

RSS_LIMIT_KIB = 16 << 10
"""About 11 MiB here, half of them pages of Python itself that the agent shares."""


def test_both_sides_agree_on_names_and_version() -> None:
    for name in ("SOCKET_NAME", "PROTOCOL", "ALREADY_RUNNING_EXIT"):
        assert getattr(keeper, name) == getattr(keeper_client, name)


def test_it_imports_little() -> None:
    program = (
        "import sys, edgerm_executor_process.keeper\n"
        "heavy = {'asyncio', 'msgspec', 'typing', 'pathlib', 'subprocess', 'dataclasses'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env=keeper_client._keeper_env(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


@pytest.mark.anyio
async def test_it_stays_small_and_alone(run: RunStarter, state_dir: Path) -> None:
    await run(launch("sleep", 600))
    assert isinstance(run.executor, ProcessExecutor)
    pid = (await run.executor._ask("hello"))["pid"]
    status = await anyio.Path(f"/proc/{pid}/status").read_text()
    rss_kib = int(status.split("VmRSS:")[1].split()[0])
    assert rss_kib < RSS_LIMIT_KIB
    second = await anyio.run_process(
        [sys.executable, "-S", "-m", "edgerm_executor_process.keeper", str(state_dir)],
        env=keeper_client._keeper_env(),
        check=False,
    )
    assert second.returncode == keeper.ALREADY_RUNNING_EXIT
