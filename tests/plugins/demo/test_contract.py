"""The command `edgerm demo` keeps the contract of commands."""

import pytest

from edgerm_core.testing.contracts.command import CommandContract


class TestDemo(CommandContract):
    @pytest.fixture
    def plugin_module(self) -> str:
        return "edgerm_demo.plugin"
