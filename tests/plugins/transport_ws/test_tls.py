"""TLS contexts: which file is wrong, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgerm_transport_ws.config import WsConfig
from edgerm_transport_ws.tls import certificate_name, client_context, server_context

from edgerm_core.errors import ConfigError


def test_listening_on_wss_without_a_certificate_names_the_key_to_set() -> None:
    with pytest.raises(ConfigError, match=r"transport\.ws\.certificate: listening on wss:// needs"):
        server_context(WsConfig())


def test_a_missing_file_is_named_with_its_key(certificates: dict[str, str]) -> None:
    with pytest.raises(
        ConfigError, match=r"transport\.ws\.certificate: /none\.pem cannot be read: No such"
    ):
        server_context(WsConfig(certificate="/none.pem", key=certificates["server.key"]))
    with pytest.raises(ConfigError, match=r"transport\.ws\.key: /none\.key cannot be read"):
        server_context(WsConfig(certificate=certificates["server.pem"], key="/none.key"))
    with pytest.raises(ConfigError, match=r"transport\.ws\.ca: /none\.ca cannot be read"):
        client_context(WsConfig(ca="/none.ca"))
    with pytest.raises(ConfigError, match=r"transport\.ws\.client_certificate: /none"):
        client_context(WsConfig(client_certificate="/none.pem"))


def test_a_key_of_another_certificate_is_refused(certificates: dict[str, str]) -> None:
    config = WsConfig(certificate=certificates["server.pem"], key=certificates["client.key"])
    with pytest.raises(ConfigError, match=r"transport\.ws\.key: .*client\.key is not the private key of"):
        server_context(config)


def test_a_file_that_is_no_certificate_is_refused(certificates: dict[str, str], tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    with pytest.raises(ConfigError, match="is not a PEM certificate"):
        server_context(WsConfig(certificate=str(nonsense), key=certificates["server.key"]))
    with pytest.raises(ConfigError, match="holds no PEM certificate of an authority"):
        client_context(WsConfig(ca=str(nonsense)))


def test_certificate_and_key_may_share_a_file(certificates: dict[str, str], tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(
        Path(certificates["server.pem"]).read_text() + Path(certificates["server.key"]).read_text()
    )
    assert server_context(WsConfig(certificate=str(both)))


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (None, None),
        ({}, None),
        ({"subject": ((("organizationName", "o"),), (("commonName", "agent-7"),))}, "agent-7"),
        ({"subject": (), "subjectAltName": (("DNS", "a.example"), ("DNS", "b"))}, "a.example"),
        ({"subject": ((("commonName", ""),),), "subjectAltName": (("URI", "urn:x"),)}, "urn:x"),
        ({"subject": ()}, None),
    ],
)
def test_the_name_is_the_common_name_or_else_the_first_alternative(
    certificate: dict[str, object] | None, name: str | None
) -> None:
    assert certificate_name(certificate) == name
