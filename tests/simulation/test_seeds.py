"""Seeds that once failed, each with its story. A change to the simulator changes what a seed draws; the
bugs themselves are held by unit tests, and by `planted.py`, which puts them back and looks for them."""

from __future__ import annotations

import pytest

from edgerm_core.testing.simulator.cluster import run_plan
from edgerm_core.testing.simulator.plan import draw

SEEDS = [
    # A power cut makes an agent forget numbers of status updates. The master lowered its own count in
    # memory and not on the disk; after a restart it took the agent's next news for something it had seen.
    44,
    # The operator forgets an agent whose connection had just broken. It comes back with its runs, which no
    # book knew of: a task was placed beside them while they were still being stopped.
    93,
    # The same with a device: its only slot was granted again while the old run held it.
    24,
    # A journal on a full disk, and then a kill: what the agent forgets it may do again, and says so.
    165,
    # A task restarts in place while its kill is on the way. What the framework was told changed behind a
    # version that it had been told already.
    175,
    # A scheduler sets an agent aside for a big task, for a while. Nothing else happened, nobody asked it
    # again, and small tasks that fitted waited for ever.
    186,
    231,
    # A framework's answer went to a connection that a NAT had forgotten; it had to ask after its task.
    317,
    # An executor fell ill between Register and Registered, and the master never heard of it.
    633,
    655,
    # A framework stays away for longer than its failover timeout, and comes back to find its tasks gone.
    5068,
]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_that_once_failed_holds(seed: int) -> None:
    assert run_plan(draw(seed)).failure == ""
