"""The files in deploy/ are right: every key exists, every shown default is the default, none is missing."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Final

import msgspec
import pytest

from edgerm_core.cli.main import edgerm
from edgerm_core.config import AgentConfig, Config, GatewayConfig, MasterConfig, PluginsConfig, parse_config
from edgerm_core.plugins import load_plugins

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
TOML = sorted(DEPLOY.glob("*.toml"))

EXAMPLES: Final = frozenset(
    {
        ("plugins", "enable"),
        ("agent", "executors"),
        ("agent", "usage_every_s"),
        ("agent.attributes", "zone"),
        ("agent.attributes", "floor"),
        ("agent.attributes", "link.class"),
        ("observer.event-log", "path"),
    }
)
"""Commented keys that show an example, because their default is to be unset."""


def uncommented(path: Path) -> str:
    return re.sub(r"(?m)^#(?=\[|[a-z_.]+ = )", "", path.read_text())


def section_types() -> dict[str, type[msgspec.Struct]]:
    plugins = load_plugins(Config())
    found: dict[str, type[msgspec.Struct]] = {
        "plugins": PluginsConfig,
        "master": MasterConfig,
        "agent": AgentConfig,
        "gateway": GatewayConfig,
    }
    for kind in ("transport", "executor", "scheduler", "observer", "device_driver"):
        for name in plugins.names(kind):
            config_type = plugins.provider(kind, name).config_type
            if config_type is not None:
                found[f"{kind}.{name}"] = config_type
    return found


@pytest.mark.parametrize("path", TOML, ids=lambda path: path.name)
def test_example_is_valid_as_it_stands_and_with_every_line_uncommented(path: Path) -> None:
    types = section_types()
    for text in (path.read_text(), uncommented(path)):
        config = parse_config(text, path.name)
        for kind in ("transport", "executor", "scheduler", "observer", "device_driver"):
            for name in getattr(config, kind):
                config.section(kind, name, types[f"{kind}.{name}"])


@pytest.mark.parametrize("path", TOML, ids=lambda path: path.name)
def test_shown_defaults_are_the_defaults(path: Path) -> None:
    types = section_types()
    section = ""
    checked = 0
    for line in path.read_text().splitlines():
        if header := re.fullmatch(r"#?\[\[?([a-z_.-]+)\]\]?", line):
            section = header[1]
        elif match := re.fullmatch(r"#([a-z_.]+) = (.*)", line):
            if (section, match[1]) in EXAMPLES or section.endswith(".devices"):
                continue
            default = types[section]
            shown = parse_config(f"[{section}]\n{match[1]} = {match[2]}\n")
            if "." in section:
                kind, _, name = section.partition(".")
                assert shown.section(kind, name, default) == default(), line
            else:
                assert getattr(shown, section) == default(), line
            checked += 1
    assert checked > 10


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("edgerm-master.toml", {"plugins": PluginsConfig, "master": MasterConfig}),
        (
            "edgerm-gateway.toml",
            {"plugins": PluginsConfig, "agent": AgentConfig, "gateway": GatewayConfig},
        ),
    ],
)
def test_every_key_of_core_is_shown(name: str, sections: dict[str, type[msgspec.Struct]]) -> None:
    text = uncommented(DEPLOY / name)
    for section, struct in sections.items():
        body = re.search(rf"(?ms)^\[{section}\]\n(.*?)(?=^\[(?!{section}\.)|\Z)", text)
        assert body is not None
        for key in struct.__struct_fields__:
            assert re.search(rf"(?m)^{key} = |^\[{section}\.{key}\]", body[1]), f"{section}.{key}"


@pytest.mark.parametrize("role", ["master", "agent"])
def test_unit_starts_a_command_that_there_is(role: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DEPLOY / f"edgerm-{role}.service")
    service = unit["Service"]
    assert service["ExecStart"] == f"/opt/edgerm/bin/edgerm --config /etc/edgerm/edgerm.toml {role}"
    assert role in edgerm.list_commands(edgerm.make_context("edgerm", [], resilient_parsing=True))
    if role == "agent":
        assert (service["KillMode"], service["Delegate"]) == ("process", "yes")
