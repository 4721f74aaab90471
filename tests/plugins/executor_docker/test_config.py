"""The section, where the engine is, and secrets that must not be shown."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from edgerm_executor_docker import config as config_module
from edgerm_executor_docker.config import DockerConfig, Registry, find_socket, find_state_dir

from edgerm_core.errors import ConfigError


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ({"socket": "tcp://10.0.0.1:2375"}, "unix:///path"),
        ({"max_pulls": 0}, "max_pulls"),
        ({"pids_limit_default": 0}, "pids_limit_default"),
        ({"engine_patience_s": 0.0}, "engine_patience_s"),
        ({"registry_patience_s": 0.5}, "registry_patience_s"),
        ({"call_timeout_s": 1e9}, "call_timeout_s"),
        ({"allow_mounts": ["srv"]}, "absolute"),
        ({"allow_devices": ["/dev/../etc"]}, "absolute"),
        ({"pull": "sometimes"}, "pull"),
        ({"colour": "blue"}, "colour"),
        ({"registries": {"r.example": {"username": "pi"}}}, "password_file"),
        (
            {"registries": {"r.example": {"username": "pi", "password": "a", "password_file": "b"}}},
            "either",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(section: dict[str, object], part: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=part):
        msgspec.convert(section, DockerConfig)


def test_defaults_give_a_task_as_little_as_possible() -> None:
    config = DockerConfig()
    assert config.networks == ("none", "bridge")
    assert config.allow_mounts == config.allow_devices == config.allow_capabilities == ()


def test_password_is_never_shown() -> None:
    login = Registry("pi", password="s3cret")
    config = DockerConfig(registries={"r.example": login})
    for text in (repr(login), str(login), repr(config), str(config), f"{login}"):
        assert "s3cret" not in text


def test_socket_comes_from_config_then_environment_then_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///from/environment.sock")
    assert find_socket(DockerConfig(socket="unix:///from/config.sock")) == "/from/config.sock"
    assert find_socket(DockerConfig()) == "/from/environment.sock"
    monkeypatch.delenv("DOCKER_HOST")
    docker, podman = tmp_path / "docker.sock", tmp_path / "podman.sock"
    monkeypatch.setattr(config_module, "DOCKER_SOCKET", str(docker))
    monkeypatch.setattr(config_module, "PODMAN_SOCKET", str(podman))
    assert find_socket(DockerConfig()) == str(docker)
    podman.touch()
    assert find_socket(DockerConfig()) == str(podman)
    docker.touch()
    assert find_socket(DockerConfig()) == str(docker)


def test_engine_on_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2375")
    with pytest.raises(ConfigError, match="its own machine"):
        find_socket(DockerConfig())


def test_state_dir_is_below_the_agents_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGERM_AGENT_DATA", str(tmp_path))
    assert find_state_dir(DockerConfig()) == tmp_path / "executor-docker"
    assert find_state_dir(DockerConfig(state_dir=str(tmp_path / "x"))) == tmp_path / "x"
