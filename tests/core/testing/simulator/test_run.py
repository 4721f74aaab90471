"""The command line: a seed that holds, a seed that fails, and how to see it again."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from edgerm_core.master.state import MasterState
from edgerm_core.testing.simulator.run import Tally, find_story, main, run_for, run_seeds
from edgerm_core.testing.simulator.swarm import Swarm

QUIET = Swarm(kinds=(), agents=(1, 1), frameworks=(1, 1), submissions=(2, 4), faults_s=(30.0, 60.0))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    original = MasterState.release

    def release(self: MasterState, agent: object, task_id: object) -> None:
        original(self, agent, task_id)  # type: ignore[arg-type]
        agent.free = agent.free + agent.totals  # type: ignore[attr-defined]

    monkeypatch.setattr(MasterState, "release", release)


def test_a_seed_that_holds_exits_with_0() -> None:
    result = CliRunner().invoke(main, ["--seed", "1"])
    assert result.exit_code == 0, result.output
    assert "seed 1 holds" in result.output


def test_the_story_of_a_seed_can_be_read() -> None:
    result = CliRunner().invoke(main, ["--seed", "1", "--story", "--keep", "0,1,2"])
    assert result.exit_code == 0, result.output
    assert "--- from here on nothing fails any more ---" in result.output


@pytest.mark.usefixtures("broken")
def test_a_seed_that_fails_is_shrunk_and_can_be_run_again() -> None:
    seed = run_seeds(list(range(5)), QUIET).failed[0][0]
    finding = find_story(seed, swarm=QUIET, seconds=20.0)
    assert "free is" in finding.failure
    assert len(finding.kept) <= 3
    assert f"--seed {seed} --keep" in str(finding)
    assert finding.lines


@pytest.mark.usefixtures("broken")
def test_the_command_exits_with_1_and_says_what_to_run() -> None:
    result = CliRunner().invoke(main, ["--seed", "2", "--keep", ",".join(map(str, range(40)))])
    assert result.exit_code == 1
    assert "seed 2: m: after" in result.output


def test_many_seeds_run_on_several_processes() -> None:
    tally = run_for(0.1, 1, processes=1, swarm=QUIET)
    assert tally.seeds >= 5
    assert tally.failed == []
    assert "seeds/min" in str(tally)


def test_tallies_add_up() -> None:
    one, two = run_seeds([1, 2], QUIET), run_seeds([3], QUIET)
    total = Tally(counts={}, failed=[])
    total.merge(one)
    total.merge(two)
    assert total.seeds == 3
    assert total.events == one.events + two.events
    assert total.counts["runs"] == one.counts["runs"] + two.counts["runs"]
