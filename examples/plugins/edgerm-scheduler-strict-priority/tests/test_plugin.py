"""The rules for every plugin."""

import pytest
from edgerm_core.testing.contracts.plugin import PluginContract


class TestPlugin(PluginContract):
    @pytest.fixture
    def plugin_module(self) -> str:
        return "edgerm_scheduler_strict_priority.plugin"
