"""The simulator finds what people get wrong: each planted bug in a few seeds, and nothing without it."""

from __future__ import annotations

import pytest

from edgerm_core.testing.simulator.cluster import run_plan
from edgerm_core.testing.simulator.draw import draw

from . import planted_gateways
from .planted import PLANTED, Planted

ALL: dict[str, Planted] = {**PLANTED, **planted_gateways.PLANTED}

MAX_SEEDS = 60
"""Seeds within which each bug must show."""


@pytest.mark.parametrize("name", ALL)
def test_planted_bug_is_found(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    planted = ALL[name]
    found = ""
    with pytest.MonkeyPatch.context() as patch:
        planted.plant(patch)
        for seed in range(MAX_SEEDS):
            found = run_plan(draw(seed, planted.swarm)).failure
            if found:
                break
    with capsys.disabled():
        print(
            f"\n{name}: {seed + 1} seeds: {found.splitlines()[0][:110] if found else 'not found'}", end=""
        )
    assert found, f"{planted.story}: not found in {MAX_SEEDS} seeds"
    assert run_plan(draw(seed, planted.swarm)).failure == "", "the seed fails without the bug, too"
