"""The same seed gives the same story, byte for byte, whatever the order of sets in this process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgerm_core.testing.simulator.cluster import run_plan
from edgerm_core.testing.simulator.draw import draw

SEEDS = range(12)

PROGRAM = """
from edgerm_core.testing.simulator.cluster import run_plan
from edgerm_core.testing.simulator.draw import draw
for seed in range(12):
    print(run_plan(draw(seed)).digest)
"""


@pytest.mark.parametrize("hash_seed", ["0", "1", "4711"])
def test_the_story_does_not_depend_on_the_hash_seed(hash_seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    assert printed.stdout.split() == [run_plan(draw(seed)).digest for seed in SEEDS]


def test_different_seeds_tell_different_stories() -> None:
    assert len({run_plan(draw(seed)).digest for seed in SEEDS}) == len(SEEDS)
