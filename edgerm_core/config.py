"""The configuration: one TOML file, typed, every key optional.

Core's own sections are `[plugins]`, `[master]`, `[agent]` and `[gateway]`. A plugin's section is
`[<kind>.<name>]`, such as `[transport.ws]`, and is checked against the plugin's own type when it is
first used, so that a file may speak of plugins that are not installed on this machine.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from edgerm_core import limits
from edgerm_core.attributes import Attributes
from edgerm_core.errors import ConfigError

T = TypeVar("T")

DEFAULT_URL: Final = "ws://127.0.0.1:7070"
"""Where a master listens and everybody else dials unless told otherwise."""

KINDS: Final = ("transport", "store", "scheduler", "observer", "executor", "device_driver")
"""Kinds of plugin section."""


def default_data_dir(role: str) -> Path:
    """Return where `role` (`master`, `agent`, `client`) keeps its files unless told otherwise.

    `$EDGERM_DATA/<role>`, else `/var/lib/edgerm/<role>` for root, else `~/.local/share/edgerm/<role>`.
    """
    base = os.environ.get("EDGERM_DATA")
    if base:
        return Path(base) / role
    if os.geteuid() == 0:
        return Path("/var/lib/edgerm") / role
    return Path.home() / ".local/share/edgerm" / role


class PluginsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which installed plugins are loaded.

    Attributes:
        enable: only these (entry-point names, see `edgerm plugins`); None: all that are installed.
        disable: not these.
    """

    enable: tuple[str, ...] | None = None
    disable: tuple[str, ...] = ()


class MasterConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[master]`.

    Attributes:
        listen: URLs to listen on, all at once.
        data_dir: records and blobs; one master owns it at a time.
        store: name of the store plugin.
        scheduler: name of the scheduler plugin; empty: `drf` if it is installed, else `first-fit`.
        insecure: allow listening off loopback although peers are not authenticated.
        heartbeat_s: cadence of agents on ordinary links.
        heartbeat_constrained_s: cadence of agents with `link.class = "constrained"`.
        lease_grace_s: added to the missed heartbeats before an agent is unreachable.
        recovery_grace_s: extra time for agents to come back after the master was away.
        offer_timeout_s: unanswered offers are rescinded after this.
        max_blob_bytes: largest blob taken.
        blob_store_bytes: all blobs; the least recently used that no task needs go first.
        retain_terminal_tasks: ended tasks kept.
    """

    listen: tuple[str, ...] = (DEFAULT_URL,)
    data_dir: str = ""
    store: str = "sqlite"
    scheduler: str = ""
    insecure: bool = False
    heartbeat_s: float = limits.HEARTBEAT_S
    heartbeat_constrained_s: float = limits.HEARTBEAT_CONSTRAINED_S
    lease_grace_s: float = limits.LEASE_GRACE_S
    recovery_grace_s: float = limits.RECOVERY_GRACE_S
    offer_timeout_s: float = limits.OFFER_TIMEOUT_S
    max_blob_bytes: int = limits.MAX_BLOB_BYTES
    blob_store_bytes: int = limits.BLOB_STORE_BYTES
    retain_terminal_tasks: int = limits.RETAIN_TERMINAL_TASKS

    def __post_init__(self) -> None:
        for key in ("heartbeat_s", "heartbeat_constrained_s"):
            if not 0.05 <= getattr(self, key) <= 86_400:
                raise ValueError(f"{key} must be 0.05 to 86400 seconds")
        for key in ("lease_grace_s", "recovery_grace_s", "offer_timeout_s"):
            if not 0 <= getattr(self, key) <= 10 * 365 * 86_400:
                raise ValueError(f"{key} must be 0 seconds to ten years")
        if not self.listen:
            raise ValueError("listen must name at least one URL")


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[agent]`.

    Attributes:
        masters: URLs of masters, tried in turn.
        name: for people; empty: the host name.
        id: identity; empty: made once and kept in the data directory.
        data_dir: sandboxes, cached blobs, records; one agent owns it at a time.
        resources: what to offer, such as `cpus:2;mem:512MiB;ports:[31000-31999]`: caps what was
            detected and adds names that cannot be detected. Empty: all that was detected.
        reserve: kept back for the machine itself, taken off what was detected.
        attributes: facts added to the detected ones.
        executors: names of executors to offer; None: all installed.
        insecure: allow joining a master off loopback although nobody is authenticated.
        log_ring_bytes: per task and stream.
        blob_cache_bytes: all cached blobs.
        max_tasks: at the same time; the master places no more there.
        usage_every_s: how often to measure and tell what tasks use, for `edgerm ps`; 0: never. None:
            every 10 s, or never where the attribute `link.class` is `constrained`.
    """

    masters: tuple[str, ...] = (DEFAULT_URL,)
    name: str = ""
    id: str = ""
    data_dir: str = ""
    resources: str = ""
    reserve: str = ""
    attributes: Attributes = {}
    executors: tuple[str, ...] | None = None
    insecure: bool = False
    log_ring_bytes: int = limits.LOG_RING_BYTES
    blob_cache_bytes: int = limits.BLOB_CACHE_BYTES
    max_tasks: int = limits.AGENT_MAX_TASKS
    usage_every_s: float | None = None

    def __post_init__(self) -> None:
        if not self.masters:
            raise ValueError("masters must name at least one URL")
        if not 4096 <= self.log_ring_bytes <= 1 << 30:
            raise ValueError("log_ring_bytes must be 4096 to 1 GiB")
        if not 1 <= self.max_tasks <= 100_000:
            raise ValueError("max_tasks must be 1 to 100000")
        if self.usage_every_s is not None and not 0 <= self.usage_every_s <= 86_400:
            raise ValueError("usage_every_s must be 0 to 86400")


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[gateway]`: where an agent accepts constrained devices and stands in for them.

    Attributes:
        listen: URLs to listen on, all at once; none: this agent is no gateway.
        insecure: allow listening off loopback although devices are not authenticated.
        max_devices: at the same time.
        heartbeat_s: cadence of devices on ordinary links, until the master has said.
        heartbeat_constrained_s: cadence of devices with `link.class = "constrained"`, until the master
            has said.
        lease_grace_s: added to three missed heartbeats before a device counts as gone, until the master
            has said.
        custody_bytes: status updates kept on disk for the master while it cannot be reached; beyond it
            devices keep theirs.
    """

    listen: tuple[str, ...] = ()
    insecure: bool = False
    max_devices: int = limits.GATEWAY_MAX_DEVICES
    heartbeat_s: float = limits.HEARTBEAT_S
    heartbeat_constrained_s: float = limits.HEARTBEAT_CONSTRAINED_S
    lease_grace_s: float = limits.LEASE_GRACE_S
    custody_bytes: int = limits.CUSTODY_BYTES

    def __post_init__(self) -> None:
        for key in ("heartbeat_s", "heartbeat_constrained_s"):
            if not 0.05 <= getattr(self, key) <= 86_400:
                raise ValueError(f"{key} must be 0.05 to 86400 seconds")
        if not 0 <= self.lease_grace_s <= 10 * 365 * 86_400:
            raise ValueError("lease_grace_s must be 0 seconds to ten years")
        if not 1 <= self.max_devices <= limits.MAX_RELAY_CHANNELS:
            raise ValueError(f"max_devices must be 1 to {limits.MAX_RELAY_CHANNELS}")
        if not 1 << 16 <= self.custody_bytes <= 1 << 40:
            raise ValueError("custody_bytes must be 64 KiB to 1 TiB")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. Plugin sections stay undecoded until `section` asks for one."""

    plugins: PluginsConfig = PluginsConfig()
    master: MasterConfig = MasterConfig()
    agent: AgentConfig = AgentConfig()
    gateway: GatewayConfig = GatewayConfig()
    transport: dict[str, dict[str, Any]] = {}
    store: dict[str, dict[str, Any]] = {}
    scheduler: dict[str, dict[str, Any]] = {}
    observer: dict[str, dict[str, Any]] = {}
    executor: dict[str, dict[str, Any]] = {}
    device_driver: dict[str, dict[str, Any]] = {}

    def section(self, kind: str, name: str, section_type: type[T]) -> T:
        """Return `[kind.name]` as `section_type`; all defaults where the file has no such section.

        Raises:
            ConfigError: naming the key and what was expected.
        """
        raw = getattr(self, kind).get(name, {})
        return _convert(raw, section_type, f"{kind}.{name}")

    def has_section(self, kind: str, name: str) -> bool:
        """Return whether the file has `[kind.name]`."""
        return name in getattr(self, kind)


def load_config(path: Path | None) -> Config:
    """Read the file; None: all defaults.

    Raises:
        ConfigError: if it cannot be read, is not TOML, or a key is unknown or of the wrong type.
    """
    if path is None:
        return Config()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from error
    return parse_config(text, str(path))


def parse_config(text: str, where: str = "config") -> Config:
    """Read configuration text. Raises as `load_config`."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(where, f"not TOML: {error}") from error
    agent = raw.get("agent")
    if isinstance(agent, dict) and isinstance(agent.get("attributes"), dict):
        raw["agent"] = {**agent, "attributes": flatten_attributes(agent["attributes"])}
    return _convert(raw, Config, where)


def flatten_attributes(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the table with names joined by dots: TOML reads `link.class = "x"` as a table in a table."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat.update(
            flatten_attributes(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else {prefix + name: value}
        )
    return flat


_AT = re.compile(r" - at `(?:key in )?\$(.*)`$")
_TYPES = re.compile(r"`([a-z]+(?: \| [a-z]+)*)`")
_TOML_WORDS: Final = {
    "object": "a table",
    "array": "a list",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}


def explain_validation(error: msgspec.ValidationError) -> tuple[str, str]:
    """Return the key's path, such as `master.listen[0]`, and what is wrong, in TOML's words."""
    message = str(error)
    match = _AT.search(message)
    path = match[1].lstrip(".").replace("[...]", ".*") if match else ""
    message = _AT.sub("", message)
    for theirs, ours in {
        "Object contains unknown field": "unknown key",
        "Object missing required field": "missing key",
        "Invalid enum value": "not a valid choice:",
    }.items():
        if message.startswith(theirs):
            return path, message.replace(theirs, ours)
    return path, _TYPES.sub(_in_words, message).replace("Expected", "expected", 1)


def _in_words(match: re.Match[str]) -> str:
    names = [name for name in match[1].split(" | ") if name != "null"]
    if "float" in names and "int" in names:
        names.remove("int")
    return " or ".join(_TOML_WORDS.get(name, name) for name in names)


def _convert(raw: Any, wanted: type[T], where: str) -> T:
    try:
        return msgspec.convert(raw, wanted)
    except msgspec.ValidationError as error:
        path, problem = explain_validation(error)
        raise ConfigError(f"{where}: {path}" if path else where, problem) from error
