"""Registers the executor `script`.

Every daemon imports this module, and so do `edgerm --help` and others: keep it light.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from edgerm_core.hookspecs import hookimpl
from edgerm_core.interfaces import Executor, Provider

from edgerm_executor_script.config import Config


def _create(config: Config) -> Executor:
    from edgerm_executor_script.executor import ScriptExecutor

    # No two agents share a data directory, so it tells this agent's processes from those of others.
    return ScriptExecutor(config, os.environ.get("EDGERM_AGENT_DATA", ""))


@hookimpl
def executors() -> Iterable[Provider[Executor]]:
    """Provide `script`."""
    yield Provider("script", _create, Config, "scripts under a time limit")
