"""An executor of its own for each test, and a check that nothing stays behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from edgerm_executor_process.config import ProcessConfig
from edgerm_executor_process.executor import ProcessExecutor

from edgerm_core.interfaces import Executor
from edgerm_core.testing.contracts.executor import MakeExecutor, RunStarter


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "executor"


@pytest.fixture
def make_executor(state_dir: Path) -> MakeExecutor:
    def make() -> Executor:
        return ProcessExecutor(ProcessConfig(state_dir=str(state_dir)))

    return make


@pytest.fixture
async def run(make_executor: MakeExecutor, tmp_path: Path) -> AsyncIterator[RunStarter]:
    starter = RunStarter(make_executor, tmp_path / "sandboxes")
    yield starter
    await starter.clean_up()


@pytest.fixture
def groups_of() -> Iterator[Callable[[dict[str, object]], list[Path]]]:
    """Return a function from a handle's data to the run's control groups that exist; none may be left."""
    seen: set[Path] = set()

    def groups(data: dict[str, object]) -> list[Path]:
        plan = data["group"]
        assert isinstance(plan, dict)
        paths = [Path(path) for path in plan["path"].values()]
        seen.update(paths)
        return [path for path in paths if path.is_dir()]

    yield groups
    assert [path for path in seen if path.exists()] == [], "control groups were left behind"
