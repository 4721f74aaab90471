"""Seeds that once failed, each with its story. A change to the simulator changes what a seed draws; the
bugs themselves are held by unit tests, and by `planted.py`, which puts them back and looks for them.

Those of before there were gateways are drawn without them, which leaves their stories as they were."""

from __future__ import annotations

import msgspec
import pytest

from edgerm_core.testing.simulator.cluster import run_plan
from edgerm_core.testing.simulator.draw import draw
from edgerm_core.testing.simulator.swarm import EVERYTHING, Swarm

WITHOUT_GATEWAYS = msgspec.structs.replace(EVERYTHING, gateways=(0, 0))

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


WITH_GATEWAYS = msgspec.structs.replace(EVERYTHING, gateways=(1, 2))

ROAMING = Swarm(
    (),
    True,
    (1, 3),
    (1, 2),
    (4, 10),
    (300.0, 900.0),
    (10.0, 60.0),
    "first-fit",
    (1, 2),
    ("move", "device-restart", "uplink-cut"),
)

OF_GATEWAYS = [
    # A device's registration came late over a gateway's slow uplink, after the gateway had died and the
    # device had dialled the master itself. The master took it for its own copy and stopped it for good.
    (41, WITH_GATEWAYS),
    # A task ended behind a gateway that was cut off. The master asked the device how, which was restarted
    # before it could answer, and got the question as an order: the attempt began a second time.
    (7, ROAMING),
    # The same without the question: the launch had never been confirmed, and the master did not know at
    # which gateway the device had been.
    (5038, WITH_GATEWAYS),
    # The same at a gateway that was cut off from the start, of which the master had never heard.
    (11135, WITH_GATEWAYS),
    # A device plugged its camera in again while its gateway registered it. The gateway knew, and never told
    # the master.
    (7054, WITH_GATEWAYS),
    # A device was killed while its registration was being repeated on a bad link. What it had said came to
    # its gateway after its next process had registered, which was then told to stop for good.
    (70132, WITH_GATEWAYS),
    # The operator forgot a device that had been given a task and had said nothing of it yet. Its gateway
    # registered it without that task, and another one was placed where it ran.
    (60091, WITH_GATEWAYS),
    # A device that had lost its power gave a number again, to the end of its task, of which its gateway had
    # an update. The gateway took it for the same, and nobody heard of the end.
    (500644, WITH_GATEWAYS),
    # A fault of the simulator: six tasks are restarted all the time behind slow links, so that there was no
    # moment in which nothing was on its way. The operator ends such tasks after half of the time to settle.
    (700531, WITH_GATEWAYS),
    # An agent compacted its journal while it fetched a blob and had no master, and left that out.
    (5055, WITH_GATEWAYS),
]


@pytest.mark.parametrize(("seed", "swarm"), OF_GATEWAYS, ids=lambda value: str(value)[:5])
def test_a_seed_with_gateways_that_once_failed_holds(seed: int, swarm: Swarm) -> None:
    assert run_plan(draw(seed, swarm)).failure == ""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_that_once_failed_holds(seed: int) -> None:
    assert run_plan(draw(seed, WITHOUT_GATEWAYS)).failure == ""
