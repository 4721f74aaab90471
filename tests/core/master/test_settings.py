"""The settings of the state machine come out of the config as they stand there."""

from __future__ import annotations

from edgerm_core import limits
from edgerm_core.config import MasterConfig, parse_config
from edgerm_core.master.settings import Settings


def test_the_defaults_are_those_of_the_config() -> None:
    assert Settings.of(MasterConfig()) == Settings()
    assert Settings().heartbeat_s == limits.HEARTBEAT_S


def test_every_setting_is_taken_from_its_key() -> None:
    changed = {name: index + 1 for index, name in enumerate(Settings.__struct_fields__)}
    text = "[master]\n" + "".join(f"{name} = {value}\n" for name, value in changed.items())
    settings = Settings.of(parse_config(text).master)
    assert {name: getattr(settings, name) for name in changed} == changed
