"""The first framework: what it submits, what comes back, and that the modules agree on the way."""

from __future__ import annotations

import anyio
import pytest
from edgerm_demo import weather
from edgerm_demo.study import CPUS, Study
from edgerm_demo.weather import Part, independent_finding, read_parts

from edgerm_core.client import connect_framework
from edgerm_core.errors import TaskFailed
from edgerm_core.messages import TaskUpdate
from edgerm_core.tasks import TaskSpec, TaskState, check_spec

from .masters import ComputingMaster, update

pytestmark = pytest.mark.anyio
PATIENCE_S = 60.0


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """Three real weeks, the short last one among them, with few resamples."""
    monkeypatch.setattr(weather, "RESAMPLES", 2_000)
    year = read_parts()
    return [year[0], year[30], year[52]]


async def test_weeks_are_mapped_and_reduced(parts: list[Part]) -> None:
    master = ComputingMaster()
    with anyio.fail_after(PATIENCE_S):
        async with connect_framework(master.url, plugins=master.plugins, insecure=True) as framework:
            study = Study(framework, parts)
            await study.map()
            expected = {part.index: independent_finding(part) for part in parts}
            assert study.findings == expected
            assert [task.name for task in study.tasks] == ["week-01", "week-31", "week-53"]
            printed, year = await study.reduce()
    assert printed == master.printed.decode()
    assert len(printed.splitlines()) == 2
    assert year["hours"] == 168 + 168 + 23
    assert year["total"] == sum(finding.total for finding in expected.values())
    *maps, reducer = master.specs
    for spec in master.specs:
        check_spec(spec)
        assert spec.resources.quantities["cpus"] == CPUS * 1000
    assert len({spec.implementations[0].blob for spec in maps}) == 1, "one module for all weeks"
    assert [str(constraint) for constraint in reducer.constraints] == ["class==gateway"]


class SpoilingMaster(ComputingMaster):
    """The second week traps."""

    def run(self, spec: TaskSpec) -> TaskUpdate:
        return update(TaskState.FAILED) if spec.name == "week-31" else super().run(spec)


async def test_week_that_fails_ends_the_map(parts: list[Part]) -> None:
    master = SpoilingMaster()
    with anyio.fail_after(PATIENCE_S):
        async with connect_framework(master.url, plugins=master.plugins, insecure=True) as framework:
            with pytest.raises(BaseExceptionGroup) as caught:
                await Study(framework, parts).map()
    assert caught.group_contains(TaskFailed, match="week-31")
