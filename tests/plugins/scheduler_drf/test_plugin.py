"""The hook provides `drf`, and importing it imports nothing else."""

import subprocess
import sys

from edgerm_scheduler_drf.plugin import schedulers
from edgerm_scheduler_drf.scheduler import DrfScheduler

from edgerm_core.config import parse_config
from edgerm_core.plugins import load_plugins


def test_it_is_found_through_its_entry_point_and_takes_its_section() -> None:
    config = parse_config('[scheduler.drf]\nstrategy = "spread"')
    assert isinstance(load_plugins(config).create("scheduler", "drf"), DrfScheduler)
    assert [provider.name for provider in schedulers()] == ["drf"]


def test_loading_the_plugin_does_not_load_the_scheduler() -> None:
    code = "import sys, edgerm_scheduler_drf.plugin; print('edgerm_scheduler_drf.scheduler' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
