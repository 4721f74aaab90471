"""`[executor.docker]`, where the engine is, and where the executor keeps its files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

import msgspec

from edgerm_core.config import default_data_dir
from edgerm_core.errors import ConfigError

AGENT_DATA_VARIABLE: Final = "EDGERM_AGENT_DATA"
"""The agent sets it to its data directory before it creates executors."""

ENGINE_VARIABLE: Final = "DOCKER_HOST"
"""Docker's own: where the engine is."""

DOCKER_SOCKET: Final = "/var/run/docker.sock"
PODMAN_SOCKET: Final = "/run/podman/podman.sock"

DEFAULT_PIDS: Final = 512
"""Processes and threads of one task: stops a fork bomb, and is plenty for a database or a browser."""

PullPolicy = Literal["missing", "always", "never"]


class Registry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to log in at one registry.

    Attributes:
        username: or the name that goes with a token.
        password_file: file whose first line is the password or token; read at each pull.
        password: the same, in the config itself.
    """

    username: str
    password_file: str = ""
    password: str = ""

    def __post_init__(self) -> None:
        if bool(self.password) == bool(self.password_file):
            raise ValueError("a registry needs either password_file or password")

    def __repr__(self) -> str:
        return f"Registry(username={self.username!r})"

    __str__ = __repr__


class DockerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[executor.docker]`.

    Attributes:
        socket: the engine's, as `unix:///path`; empty: `DOCKER_HOST`, else Docker's usual one, else
            Podman's.
        state_dir: where the executor keeps who it is; empty: `executor-docker` in the agent's data
            directory.
        pull: when images are fetched, unless a task's options say it: `missing`, `always` or `never`.
        max_pulls: images fetched at the same time.
        registries: registry host, such as `registry.example.org:5000` or `docker.io`, to how to log in.
            For others the Docker login of the agent's user (`~/.docker/config.json`) is used.
        networks: what tasks may have as `network`: `none`, `bridge`, `host`, or names of the engine's.
        allow_mounts: directories of which (and of anything below) tasks may mount. Empty: nothing.
        allow_devices: paths in /dev that tasks may ask for, `*` allowed. Empty: only granted devices.
        allow_capabilities: Linux capabilities that tasks may ask for, such as `NET_BIND_SERVICE`.
        pids_limit_default: most processes and threads of a task whose options give no `pids_limit`.
        registry_patience_s: how long a registry may leave an image unanswered, all tries together.
        engine_patience_s: how long runs wait for an engine that is gone before they count as lost.
        call_timeout_s: how long the engine may take to answer one call.
    """

    socket: str = ""
    state_dir: str = ""
    pull: PullPolicy = "missing"
    max_pulls: int = 2
    registries: dict[str, Registry] = {}
    networks: tuple[str, ...] = ("none", "bridge")
    allow_mounts: tuple[str, ...] = ()
    allow_devices: tuple[str, ...] = ()
    allow_capabilities: tuple[str, ...] = ()
    pids_limit_default: int = DEFAULT_PIDS
    registry_patience_s: float = 120.0
    engine_patience_s: float = 300.0
    call_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if self.socket and not self.socket.startswith("unix:///"):
            raise ValueError(f"socket must be unix:///path, not {self.socket[:80]!r}: {LOCAL_ONLY}")
        if not 1 <= self.max_pulls <= 16:
            raise ValueError("max_pulls must be 1 to 16")
        if not 1 <= self.pids_limit_default <= 1_000_000:
            raise ValueError("pids_limit_default must be 1 to 1000000 processes")
        for field in ("registry_patience_s", "engine_patience_s", "call_timeout_s"):
            if not 1 <= getattr(self, field) <= 86_400:
                raise ValueError(f"{field} must be 1 to 86400 seconds")
        for field in ("allow_mounts", "allow_devices"):
            for path in getattr(self, field):
                if not path.startswith("/") or ".." in path.split("/"):
                    raise ValueError(f"{field}: {path[:80]!r} must be an absolute path without '..'")


LOCAL_ONLY: Final = "an agent uses the engine of its own machine"


def find_socket(config: DockerConfig) -> str:
    """Return the path of the engine's socket; whether anybody listens there is not looked at.

    Raises:
        ConfigError: if `DOCKER_HOST` names an engine elsewhere.
    """
    if config.socket:
        return config.socket.removeprefix("unix://")
    from_environment = os.environ.get(ENGINE_VARIABLE, "")
    if from_environment:
        if not from_environment.startswith("unix:///"):
            raise ConfigError(
                ENGINE_VARIABLE,
                f"is {from_environment[:80]!r}, but {LOCAL_ONLY}: set socket in [executor.docker] to "
                f"unix:///path",
            )
        return from_environment.removeprefix("unix://")
    if not Path(DOCKER_SOCKET).exists() and Path(PODMAN_SOCKET).exists():
        return PODMAN_SOCKET
    return DOCKER_SOCKET


def find_state_dir(config: DockerConfig) -> Path:
    """Return the executor's directory, absolute.

    `state_dir` of the config, else `executor-docker` in `$EDGERM_AGENT_DATA`, else in the default data
    directory of an agent.
    """
    if config.state_dir:
        return Path(config.state_dir).absolute()
    agent_data = os.environ.get(AGENT_DATA_VARIABLE)
    data_dir = Path(agent_data) if agent_data else default_data_dir("agent")
    return data_dir.absolute() / "executor-docker"
