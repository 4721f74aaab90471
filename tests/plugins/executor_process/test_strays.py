"""What neither an agent nor a keeper knows of is ended all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from edgerm_executor_process.executor import ProcessExecutor

from edgerm_core.testing.contracts.executor import PATIENCE_S, RunStarter, until

from .workloads import launch, living, shell

pytestmark = [pytest.mark.anyio, pytest.mark.root]


async def test_a_run_whose_agent_and_keeper_were_killed_in_its_start_is_ended(
    run: RunStarter, groups_of: Callable[[dict[str, object]], list[Path]]
) -> None:
    executor = run.executor
    assert isinstance(executor, ProcessExecutor)
    stray = shell(
        "setsid sleep 601 & trap '' TERM; while :; do sleep 0.1; done", resources="cpus:0.5;mem:64"
    )
    known = launch("sleep", 602, resources="cpus:0.5;mem:64")
    groups = groups_of((await run(stray)).data)
    assert groups
    handle = await run(known)
    await until(lambda: living(known) != [], "it has not become sleep")
    os.kill(int((await executor._ask("hello"))["pid"]), signal.SIGKILL)
    await run.restart_agent()
    with anyio.fail_after(PATIENCE_S):
        await run.executor.fingerprint()
        await run.executor.sweep([handle])
        assert living(stray) == []
        assert [group for group in groups if group.exists()] == []
        assert living(known) == [handle.data["pid"]]
        assert await run.executor.recover(handle) == handle
