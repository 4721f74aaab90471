"""The contract of executors."""

from pathlib import Path

import pytest
from edgerm_core.interfaces import TaskLaunch
from edgerm_core.testing.contracts.executor import ExecutorContract, MakeExecutor, Workloads
from scripts import launch, living

from edgerm_executor_script.config import Config
from edgerm_executor_script.executor import ScriptExecutor

INTERPRETERS = {"sh": "sh", "gone": "no-such-interpreter"}


class Scripts(Workloads):
    """How the suite's situations are spelt for this executor."""

    def prints(self, text: str) -> TaskLaunch:
        return launch('printf %s "$1"', text)

    def exits(self, code: int) -> TaskLaunch:
        return launch(f"exit {code}")

    def runs(self) -> TaskLaunch:
        return launch("sleep 600 & wait")

    def ignores_stop(self) -> TaskLaunch:
        return launch("trap '' TERM; echo deaf; while :; do sleep 1; done")

    def cannot_start(self) -> TaskLaunch:
        return launch("true", interpreter="gone")

    def bad_options(self) -> TaskLaunch:
        return launch("true", colour="blue")

    def prints_much(self, total_bytes: int) -> TaskLaunch:
        return launch('yes 0123456789abcdef | head -c "$1"; echo; echo end', str(total_bytes))

    def prints_env(self, name: str, value: str) -> TaskLaunch:
        return launch(f"printenv {name}", env={name: value})

    def alive(self, launch: TaskLaunch) -> bool:
        return bool(living(launch))


class TestExecutor(ExecutorContract):
    @pytest.fixture
    def make_executor(self, tmp_path: Path) -> MakeExecutor:
        return lambda: ScriptExecutor(Config(interpreters=INTERPRETERS), str(tmp_path))

    @pytest.fixture
    def workloads(self) -> Workloads:
        return Scripts()
