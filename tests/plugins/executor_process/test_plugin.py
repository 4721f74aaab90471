"""The hook, through core's own loader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgerm_core.config import parse_config
from edgerm_core.plugins import load_plugins


def test_core_finds_and_creates_the_executor(tmp_path: Path) -> None:
    config = parse_config(
        f'[plugins]\nenable = ["executor-process"]\n[executor.process]\nstate_dir = "{tmp_path}"\n'
    )
    assert load_plugins(config).create("executor", "process").name == "process"


@pytest.mark.parametrize("heavy", ["edgerm_executor_process.executor", "asyncio"])
def test_import_of_the_plugin_is_light(heavy: str) -> None:
    program = f"import sys, edgerm_executor_process.plugin; raise SystemExit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
