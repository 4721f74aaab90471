from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.config import DEFAULT_URL, Config, default_data_dir, load_config, parse_config
from edgerm_core.errors import ConfigError


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: int = 1
    names: tuple[str, ...] = ()


def test_no_file_means_all_defaults() -> None:
    config = load_config(None)
    assert config == Config()
    assert config.master.listen == (DEFAULT_URL,)


def test_sections_of_plugins_stay_raw_until_somebody_asks() -> None:
    config = parse_config("[transport.ws]\nport = 7\n[executor.nosuch]\nanything = 1\n")
    assert config.section("transport", "ws", Section) == Section(7)
    assert config.section("transport", "other", Section) == Section()
    assert config.has_section("executor", "nosuch")
    assert not config.has_section("executor", "wasm")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[master]\nlisten = 'x'", "edgerm.toml: master.listen: expected a list, got text"),
        ("[master]\nlisten = [1]", "edgerm.toml: master.listen[0]: expected text, got a whole number"),
        ("[master]\nlisten = []", "edgerm.toml: master: listen must name at least one URL"),
        ("[master]\nnosuch = 1", "edgerm.toml: master: unknown key `nosuch`"),
        ("[nosuch]", "edgerm.toml: unknown key `nosuch`"),
        ("[master]\nheartbeat_s = 0", "edgerm.toml: master: heartbeat_s must be 0.05 to 86400 seconds"),
        ("[master]\nheartbeat_s = nan", "edgerm.toml: master: heartbeat_s must be"),
        ("[agent]\nmax_tasks = 'many'", "edgerm.toml: agent.max_tasks: expected a whole number, got text"),
        ("[agent]\nmax_tasks = 0", "edgerm.toml: agent: max_tasks must be 1 to 100000"),
        ("[agent.attributes]\nx = [1]", "edgerm.toml: agent.attributes.*: expected "),
        ("[gateway]\nheartbeat_s = 0", "edgerm.toml: gateway: heartbeat_s must be 0.05 to 86400 seconds"),
        ("[gateway]\nmax_devices = 5000", "edgerm.toml: gateway: max_devices must be 1 to 4096"),
        ("[gateway]\ncustody_bytes = 1", "edgerm.toml: gateway: custody_bytes must be 64 KiB to 1 TiB"),
        ("[gateway]\nlease_grace_s = -1", "edgerm.toml: gateway: lease_grace_s must be 0 seconds"),
        ("[transport]\nws = 3", "edgerm.toml: transport.*: expected a table, got a whole number"),
        ("=", "edgerm.toml: not TOML: "),
    ],
)
def test_wrong_file_is_refused_with_the_key(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "edgerm.toml")
    assert str(caught.value).startswith(sentence)


def test_wrong_section_of_a_plugin_is_refused_with_the_key() -> None:
    config = parse_config("[transport.ws]\nnames = [1]\n")
    with pytest.raises(ConfigError, match=r"^transport\.ws: names\[0\]: expected text"):
        config.section("transport", "ws", Section)


def test_attribute_names_with_dots_need_no_quotes() -> None:
    plain = parse_config(
        "[agent.attributes]\nlink.class = 'constrained'\nlink.hops.count = 2\nzone = 'a'\n"
    )
    quoted = parse_config(
        "[agent.attributes]\n'link.class' = 'constrained'\n'link.hops.count' = 2\nzone = 'a'\n"
    )
    assert plain == quoted
    assert plain.agent.attributes == {"link.class": "constrained", "link.hops.count": 2, "zone": "a"}


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, problem in (
        (tmp_path / "none.toml", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(ConfigError, match=f"{path.name}: cannot be read: {problem}$"):
            load_config(path)
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "binary")


def test_data_dir_is_named_by_the_environment_or_by_who_we_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGERM_DATA", str(tmp_path))
    assert default_data_dir("agent") == tmp_path / "agent"
    monkeypatch.delenv("EDGERM_DATA")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_data_dir("agent") == Path("/var/lib/edgerm/agent")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_data_dir("agent") == tmp_path / ".local/share/edgerm/agent"


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=200))
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    try:
        parse_config(text)
    except ConfigError:
        pass
