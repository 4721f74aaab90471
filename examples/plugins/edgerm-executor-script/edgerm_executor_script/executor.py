"""The executor: lays out the script, starts it, ends it with all it started."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import anyio
from edgerm_core.agents import Fingerprint
from edgerm_core.errors import ExecutorError, TaskLost
from edgerm_core.interfaces import Executor, Sandbox, TaskHandle, TaskLaunch
from edgerm_core.tasks import ExitResult

from edgerm_executor_script import marks
from edgerm_executor_script.config import Config, read_options
from edgerm_executor_script.run import Run, end_marked

log = logging.getLogger(__name__)

NAME = "script"


class ScriptExecutor(Executor):
    """Scripts under a time limit.

    Parameters:
        data_dir: the agent's, which tells its runs from those of other agents.
    """

    name = NAME

    def __init__(self, config: Config, data_dir: str) -> None:
        self._config = config
        self._agent_mark = marks.agent_mark(data_dir)
        self._runs: dict[str, Run] = {}

    async def fingerprint(self) -> Fingerprint:
        """See `Executor.fingerprint`."""
        there = {name: self._find(name) is not None for name in self._config.interpreters}
        if not any(there.values()):
            problem = f"none of {', '.join(sorted(there))} is in {self._config.search_path}"
            return Fingerprint(NAME, healthy=False, problem=problem)
        capabilities = {"logs": True, "signals": True, "mem_limit": False, "survives_agent_restart": False}
        facts = {name: True for name, found in there.items() if found}
        return Fingerprint(NAME, "1", capabilities=capabilities, attributes=facts)

    async def start(self, launch: TaskLaunch, sandbox: Sandbox) -> TaskHandle:
        """See `Executor.start`. Does not wait for anything, so it cannot be cancelled half-way."""
        options = read_options(launch, self._config)
        assert options.time_limit_s is not None
        interpreter = self._find(options.interpreter)
        if interpreter is None:
            command = self._config.interpreters[options.interpreter]
            raise ExecutorError(f"{command} is not installed on this agent: it is not in its search path")
        path = launch.blob_path
        if options.script is not None:
            path = sandbox.state_dir / "script"
            path.write_text(options.script, encoding="utf-8")
        mark = marks.new_mark(self._agent_mark)
        try:
            process = subprocess.Popen(
                [interpreter, str(path), *map(str, launch.implementation.args)],
                cwd=sandbox.work_dir,
                env={"PATH": self._config.search_path, **launch.env, marks.VARIABLE: mark},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise ExecutorError(f"{interpreter} cannot be started: {error.strerror}") from error
        self._runs[mark] = Run(process, mark, sandbox, options.time_limit_s, launch.kill_grace_s)
        return TaskHandle(NAME, data={"mark": mark})

    async def wait(self, handle: TaskHandle) -> ExitResult:
        """See `Executor.wait`. Returns when all that the script started has ended, too."""
        run = self._runs.get(_mark(handle))
        if run is None:
            raise TaskLost(f"executor {NAME} knows no run {handle.data}")
        await run.ended.wait()
        await self._end_all(run.mark)
        return run.result

    async def stop(self, handle: TaskHandle, grace_s: float) -> None:
        """See `Executor.stop`."""
        run = self._runs.get(_mark(handle))
        if run is None:
            return
        run.signal(signal.SIGTERM)
        with anyio.move_on_after(grace_s):
            await run.ended.wait()
        run.signal(signal.SIGKILL)
        await run.ended.wait()
        await self._end_all(run.mark)

    async def destroy(self, handle: TaskHandle) -> None:
        """See `Executor.destroy`. Also of a run that an earlier agent process started."""
        mark = _mark(handle)
        if not mark.startswith(f"{self._agent_mark}."):
            return
        run = self._runs.get(mark)
        if run is not None:
            run.signal(signal.SIGKILL)
            await run.ended.wait()
        await self._end_all(mark)
        self._runs.pop(mark, None)

    async def recover(self, handle: TaskHandle) -> TaskHandle:
        """See `Executor.recover`: nobody has kept the output of what an earlier agent process started."""
        raise TaskLost(f"runs of executor {NAME} end with their agent")

    async def sweep(self, kept: Sequence[TaskHandle]) -> None:
        """See `Executor.sweep`."""
        await self._end_all(f"{self._agent_mark}.", tuple(map(_mark, kept)))

    async def close(self) -> None:
        """See `Executor.close`."""
        for mark in list(self._runs):
            await self.destroy(TaskHandle(NAME, data={"mark": mark}))

    async def _end_all(self, prefix: str, but: tuple[str, ...] = ()) -> None:
        if not await end_marked(prefix, but):
            log.error("processes marked %s=%s could not be ended", marks.VARIABLE, prefix)

    def _find(self, interpreter: str) -> str | None:
        """Return the interpreter's path, if it is installed."""
        command = self._config.interpreters[interpreter]
        if "/" in command:
            return command if Path(command).is_file() else None
        return shutil.which(command, path=self._config.search_path)


def _mark(handle: TaskHandle) -> str:
    return str(handle.data.get("mark"))
