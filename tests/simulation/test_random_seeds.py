"""Fresh seeds on all cores for a while. A failure prints its shrunk story and how to run it again."""

from __future__ import annotations

import os
import random

import pytest

from edgerm_core.testing.simulator.run import MAX_SEED, find_story, run_for

SECONDS = float(os.environ.get("EDGERM_SIM_SECONDS", "50"))
"""How long, on all cores together for this wall time."""


@pytest.mark.timeout(SECONDS + 300)
def test_fresh_seeds_hold(capsys: pytest.CaptureFixture[str]) -> None:
    first = random.SystemRandom().randrange(MAX_SEED)
    tally = run_for(SECONDS, first)
    with capsys.disabled():
        print(f"\nsimulator, seeds from {first}: {tally}")
    assert tally.seeds
    if tally.failed:
        pytest.fail(str(find_story(min(tally.failed)[0])), pytrace=False)
