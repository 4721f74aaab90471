"""Who this agent is: an id for life, one for each boot of the machine, one for each process."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from edgerm_core.errors import ConfigError, SpecError, StoreError
from edgerm_core.ids import AgentId, check_name

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def agent_id(configured: str, data_dir: Path) -> AgentId:
    """Return the id from the config, else the one kept in `data_dir`, which is made the first time.

    Raises:
        ConfigError: if the configured one is not a name.
        StoreError: if the kept one cannot be read or written.
    """
    if configured:
        try:
            return AgentId(check_name(configured, "agent id"))
        except SpecError as error:
            raise ConfigError("agent.id", str(error)) from error
    path = data_dir / "agent-id"
    try:
        if path.exists():
            return AgentId(check_name(path.read_text(encoding="ascii").strip(), f"{path}: agent id"))
        made = AgentId(secrets.token_hex(8))
        path.write_text(f"{made}\n", encoding="ascii")
        return made
    except (OSError, UnicodeDecodeError, SpecError) as error:
        raise StoreError(f"the agent's id in {path} cannot be used: {error}") from error


def boot_id(path: Path = BOOT_ID) -> str:
    """Return what changes with every start of the machine; empty where the kernel does not say."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def incarnation() -> str:
    """Return what changes with every start of the agent process."""
    return secrets.token_hex(8)
