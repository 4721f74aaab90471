"""`[executor.process]`, and where the executor keeps its files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from edgerm_core.config import default_data_dir

AGENT_DATA_VARIABLE: Final = "EDGERM_AGENT_DATA"
"""The agent sets it to its data directory before it creates executors, so that several agents on one
machine do not share a keeper."""

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""`PATH` of a task whose spec gives none: Debian's for root."""

DEFAULT_PIDS: Final = 512
"""Processes and threads of one task: stops a fork bomb, and is plenty for a build or a browser."""


class ProcessConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[executor.process]`.

    Attributes:
        state_dir: where the keeper has its socket and its log; empty: `executor-process` in the agent's
            data directory.
        user: name of the user that tasks run as; empty: the agent's own. Needs an agent that is root, and a
            data directory that others may pass through (mode 0711).
        pids_limit_default: most processes and threads of a task whose options give no `pids_limit`.
        path: `PATH` of tasks whose environment has none.
    """

    state_dir: str = ""
    user: str = ""
    pids_limit_default: int = DEFAULT_PIDS
    path: str = DEFAULT_PATH

    def __post_init__(self) -> None:
        if not 1 <= self.pids_limit_default <= 1_000_000:
            raise ValueError("pids_limit_default must be 1 to 1000000 processes")


def find_state_dir(config: ProcessConfig) -> Path:
    """Return the executor's directory, absolute.

    `state_dir` of the config, else `executor-process` in `$EDGERM_AGENT_DATA`, else in the default data
    directory of an agent.
    """
    if config.state_dir:
        return Path(config.state_dir).absolute()
    agent_data = os.environ.get(AGENT_DATA_VARIABLE)
    data_dir = Path(agent_data) if agent_data else default_data_dir("agent")
    return data_dir.absolute() / "executor-process"
