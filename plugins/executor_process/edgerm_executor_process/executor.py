"""The executor: checks a launch, asks the keeper, and tells core how runs end."""

from __future__ import annotations

import grp
import hashlib
import logging
import os
import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from edgerm_core.agents import Fingerprint
from edgerm_core.cgroups import detect_cgroups
from edgerm_core.errors import ConfigError, ExecutorError, TaskLost
from edgerm_core.ids import format_task_id
from edgerm_core.interfaces import Executor, Sandbox, TaskHandle, TaskLaunch, TaskStats
from edgerm_core.results import RESULT_NAME, RESULT_VARIABLE, read_result
from edgerm_core.tasks import ExitResult
from edgerm_executor_process.cgroup_limits import GroupPlan, mem_limit_bytes, plan_groups
from edgerm_executor_process.command import build_argv, read_options
from edgerm_executor_process.config import ProcessConfig, find_state_dir
from edgerm_executor_process.exits import ExitRecord, exit_result, start_error
from edgerm_executor_process.fingerprint import NAME, fingerprint_process
from edgerm_executor_process.keeper_client import KeeperClient, KeeperConnection, KeeperGone
from edgerm_executor_process.strays import end_strays
from edgerm_executor_process.work_dir import prepare_work_dir

log = logging.getLogger(__name__)

HANDLE_VERSION: Final = 1

KEEPER_TRIES: Final = 5
"""Keepers that may die under one request before it fails."""

KEEPER_RETRY_S: Final = 1.0
"""Between tries to start a keeper while a run is being waited for."""

ABANDON_TIMEOUT_S: Final = 10.0
"""For taking back a start that was cancelled."""


class RunData(msgspec.Struct, frozen=True):
    """A task handle's data: all that a keeper needs to find the run again.

    Attributes:
        key: `<state_dir>/<run>`: beginning of the names of the run's files.
        group: its control groups.
        log_dir, log_limit_bytes: its log rings.
        mark: what only this run has in its environment.
        result_path: where it leaves its result.
        mem_limit_bytes, pids_limit: for the sentence at its end.
        pid, start, boot_id: its main process; 0 and empty before the start.
    """

    key: str
    group: GroupPlan
    log_dir: str
    log_limit_bytes: int
    mark: str
    result_path: str
    mem_limit_bytes: int | None
    pids_limit: int
    pid: int = 0
    start: int = 0
    boot_id: str = ""


class ProcessExecutor(Executor):
    """Runs commands as processes.

    Parameters:
        config: `[executor.process]`.

    Raises:
        ConfigError: if the user that tasks are to run as does not exist, or we may not become it.
    """

    name = NAME

    def __init__(self, config: ProcessConfig) -> None:
        self._config = config
        self._base_dir = find_state_dir(config)
        self._ids = _find_ids(config.user)
        self._cgroups = detect_cgroups()
        # Several agents may share a machine and a control group.
        self._agent_group = hashlib.sha256(os.fsencode(self._base_dir)).hexdigest()[:12]
        self._keeper = KeeperClient(self._base_dir, self._note_exit)
        self._records: dict[str, ExitRecord] = {}
        self._results: dict[str, ExitResult] = {}

    async def fingerprint(self) -> Fingerprint:
        self._cgroups = detect_cgroups()
        return fingerprint_process(self._cgroups, self._base_dir)

    async def start(self, launch: TaskLaunch, sandbox: Sandbox) -> TaskHandle:
        options = read_options(launch.name, launch.implementation)
        argv = build_argv(launch.name, launch.implementation, options)
        work_dir = sandbox.work_dir.absolute()
        data = self._plan(launch, sandbox, work_dir, options.pids_limit)
        owner = None if self._ids is None else self._ids[:2]
        if launch.blob_path is None:
            prepare_work_dir(launch, work_dir, owner)
        else:  # It may be large.
            await anyio.to_thread.run_sync(prepare_work_dir, launch, work_dir, owner)
        env = {"PATH": self._config.path, **launch.env, RESULT_VARIABLE: data.result_path}
        request = {"argv": argv, "env": env, "work_dir": str(work_dir), "ids": self._ids}
        try:
            answer = await self._ask("start", run=msgspec.to_builtins(data), **request)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(ABANDON_TIMEOUT_S, shield=True):
                await self._destroy(data)
            raise
        if "error" in answer:
            raise start_error(answer)
        data = msgspec.structs.replace(
            data, pid=answer["pid"], start=answer["start"], boot_id=answer["boot_id"]
        )
        return TaskHandle(NAME, HANDLE_VERSION, msgspec.to_builtins(data))

    async def wait(self, handle: TaskHandle) -> ExitResult:
        data = _read_handle(handle)
        if data.key not in self._results:
            record = await self._wait_record(data)
            result, note = read_result(Path(data.result_path))
            self._results[data.key] = exit_result(
                record, data.mem_limit_bytes, data.pids_limit, result, note
            )
        return self._results[data.key]

    async def stop(self, handle: TaskHandle, grace_s: float) -> None:
        data = _read_handle(handle)
        deadline = anyio.current_time() + grace_s
        while data.key not in self._records:
            try:
                connection = await self._attached(data)
                if data.key in self._records:
                    return
                left_s = max(0.0, deadline - anyio.current_time())
                await connection.request("stop", key=data.key, grace_s=left_s)
                await connection.wait_for(data.key, lambda: data.key in self._records)
            except KeeperGone:
                continue

    async def destroy(self, handle: TaskHandle) -> None:
        try:
            data = _read_handle(handle)
        except TaskLost:
            return
        await self._destroy(data)

    async def recover(self, handle: TaskHandle) -> TaskHandle:
        data = _read_handle(handle)
        answer = await self._attach(data)
        if answer["state"] == "lost":
            raise TaskLost(
                f"process {data.pid} is gone and left no exit status: the machine was restarted, or the "
                f"process ended while its keeper was gone"
            )
        return handle

    async def sweep(self, kept: Sequence[TaskHandle]) -> None:
        known = {str(handle.data.get("key")) for handle in kept}
        try:
            keeper = await self._keeper.existing()
            if keeper is not None:
                for key in (await keeper.request("runs"))["keys"]:
                    if key not in known:
                        log.warning("ending %s: the agent has no record of having started it", key)
                        await keeper.request("destroy", run={"key": key})
        except (KeeperGone, ExecutorError) as error:
            log.error("the keeper in %s cannot be asked what it runs: %s", self._base_dir, error)
        names = {Path(key).name for key in known}
        await anyio.to_thread.run_sync(end_strays, self._cgroups, self._agent_group, names)

    async def stats(self, handle: TaskHandle) -> TaskStats:
        try:
            usage = (await self._ask("stats", key=_read_handle(handle).key)).get("usage")
        except ExecutorError:  # A handle that it cannot read, or no keeper to ask.
            return TaskStats()
        return TaskStats() if usage is None else TaskStats(*usage)

    async def close(self) -> None:
        await self._keeper.close()

    # --- a run's data ---

    def _plan(
        self, launch: TaskLaunch, sandbox: Sandbox, work_dir: Path, pids_limit: int | None
    ) -> RunData:
        name = f"{format_task_id(launch.task_id)}.{launch.attempt}.{launch.restarts}"
        pids_limit = self._config.pids_limit_default if pids_limit is None else pids_limit
        result_path = str(work_dir / RESULT_NAME)
        return RunData(
            key=str(sandbox.state_dir.absolute() / name),
            group=plan_groups(self._cgroups, self._agent_group, name, launch.resources, pids_limit),
            log_dir=str(sandbox.log_dir.absolute()),
            log_limit_bytes=sandbox.log_limit_bytes,
            mark=f"{RESULT_VARIABLE}={result_path}",
            result_path=result_path,
            mem_limit_bytes=mem_limit_bytes(launch.resources) if self._cgroups.memory.enforced else None,
            pids_limit=pids_limit,
        )

    # --- the keeper ---

    async def _ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Ask the keeper; ask the next one if it dies.

        Raises:
            ExecutorError: if keepers cannot be started or keep dying.
        """
        for _ in range(KEEPER_TRIES):
            connection = await self._keeper.connection()
            try:
                answer = await connection.request(operation, **fields)
            except KeeperGone:
                continue
            if operation in ("start", "attach"):
                connection.attached.add(fields["run"]["key"])
            return answer
        raise ExecutorError(
            f"{KEEPER_TRIES} keepers died one after the other: see {self._base_dir}", recoverable=True
        )

    async def _attach(self, data: RunData) -> dict[str, Any]:
        answer = await self._ask("attach", run=msgspec.to_builtins(data))
        if "error" in answer:
            raise TaskLost(str(answer["error"]))
        if answer["state"] == "ended":
            self._records[data.key] = msgspec.convert(answer["record"], ExitRecord)
        return answer

    async def _attached(self, data: RunData) -> KeeperConnection:
        """Return a connection to a keeper that has the run; notes the exit if it has ended."""
        connection = await self._keeper.connection()
        if data.key not in connection.attached:
            answer = await self._attach(data)
            if answer["state"] == "lost":
                self._records.setdefault(data.key, ExitRecord())
            connection = await self._keeper.connection()
        return connection

    async def _wait_record(self, data: RunData) -> ExitRecord:
        while data.key not in self._records:
            try:
                connection = await self._attached(data)
                await connection.wait_for(data.key, lambda: data.key in self._records)
            except KeeperGone:
                log.warning("the keeper in %s is gone; taking up its runs with a new one", self._base_dir)
            except ExecutorError as error:
                log.error("run %s cannot be followed: %s", data.key, error)
                await anyio.sleep(KEEPER_RETRY_S)
        return self._records[data.key]

    async def _destroy(self, data: RunData) -> None:
        try:
            await self._ask("destroy", run=msgspec.to_builtins(data))
        except ExecutorError as error:
            log.error("run %s cannot be cleaned up: %s", data.key, error)
        self._records.pop(data.key, None)
        self._results.pop(data.key, None)

    def _note_exit(self, key: str, record: dict[str, Any]) -> None:
        self._records[key] = msgspec.convert(record, ExitRecord)


def _read_handle(handle: TaskHandle) -> RunData:
    """Return the handle's data.

    Raises:
        TaskLost: if it is not a handle of ours, or of a version that we know.
    """
    try:
        if handle.version != HANDLE_VERSION:
            raise TaskLost(
                f"the saved handle has layout {handle.version}, this executor reads {HANDLE_VERSION}"
            )
        return msgspec.convert(handle.data, RunData)
    except msgspec.ValidationError as error:
        raise TaskLost(f"the saved handle is damaged: {error}") from error


def _find_ids(user: str) -> tuple[int, int, list[int]] | None:
    """Return user id, group id and further groups of `user`; None for the empty name.

    Raises:
        ConfigError: if there is no such user, or only root could become it.
    """
    if not user:
        return None
    where = "executor.process.user"
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(
            where, f"there is no user {user!r} on this machine: add it with useradd"
        ) from None
    if os.geteuid() not in (0, entry.pw_uid):
        raise ConfigError(where, f"only an agent that is root can run tasks as {user}")
    groups = [group.gr_gid for group in grp.getgrall() if user in group.gr_mem]
    return entry.pw_uid, entry.pw_gid, groups
