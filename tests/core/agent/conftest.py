from __future__ import annotations

import pytest

from edgerm_core.testing.agents import AgentBench


@pytest.fixture
def bench() -> AgentBench:
    """An agent that is registered with its master."""
    return AgentBench().come_up()
