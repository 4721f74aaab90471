"""The plugin is found through its hook and costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgerm_core.config import parse_config
from edgerm_core.errors import ConfigError
from edgerm_core.plugins import load_plugins


def test_it_is_installed_and_speaks_ws_and_wss() -> None:
    plugins = load_plugins(parse_config('plugins.enable = ["transport-ws"]'))
    assert plugins.transport_for("ws://127.0.0.1:1") is plugins.transport_for("wss://127.0.0.1:1")


def test_its_section_is_checked_against_its_own_type() -> None:
    plugins = load_plugins(parse_config("[transport.ws]\nmax_message_bites = 4096"))
    with pytest.raises(ConfigError, match=r"transport\.ws.*unknown key `max_message_bites`"):
        plugins.transport_for("ws://127.0.0.1:1")


def test_importing_the_plugin_does_not_import_websockets() -> None:
    script = (
        "import sys, edgerm_transport_ws.plugin as plugin\n"
        "list(plugin.transports()); print('websockets' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert output.stdout.strip() == "False"


def test_dialing_does_not_import_the_server() -> None:
    script = (
        "import sys, edgerm_transport_ws.connector, edgerm_transport_ws.transport\n"
        "print('websockets.asyncio.server' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert output.stdout.strip() == "False"
