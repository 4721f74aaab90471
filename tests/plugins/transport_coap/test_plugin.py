"""The plugin is found through its hook and costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgerm_core.config import parse_config
from edgerm_core.errors import ConfigError
from edgerm_core.plugins import load_plugins


def test_it_is_installed_and_speaks_its_schemes() -> None:
    plugins = load_plugins(parse_config('plugins.enable = ["transport-coap"]'))
    transport = plugins.transport_for("coap://127.0.0.1:1")
    for scheme in ("coap+tcp", "coap+ws"):
        assert plugins.transport_for(f"{scheme}://127.0.0.1:1") is transport


def test_its_section_is_checked_against_its_own_type() -> None:
    plugins = load_plugins(parse_config("[transport.coap]\nmax_message_bites = 4096"))
    with pytest.raises(ConfigError, match=r"transport\.coap.*unknown key `max_message_bites`"):
        plugins.transport_for("coap://127.0.0.1:1")


def loaded(statement: str, *modules: str) -> list[str]:
    script = f"import sys\n{statement}\nprint(*[m for m in {modules!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_importing_the_plugin_imports_nothing_else_of_it() -> None:
    statement = "import edgerm_transport_coap.plugin as plugin; list(plugin.transports())"
    assert loaded(statement, "edgerm_transport_coap.transport", "websockets", "aiocoap") == []


def test_dialing_over_udp_imports_neither_the_server_nor_streams() -> None:
    statement = (
        "import edgerm_transport_coap.connector, edgerm_transport_coap.transport\n"
        "import edgerm_transport_coap.datagram_carrier"
    )
    found = loaded(
        statement,
        "edgerm_transport_coap.listener",
        "edgerm_transport_coap.streams",
        "websockets",
        "aiocoap",
    )
    assert found == []
