"""One suite per hook kind, run over every implementation, ours and yours.

Needs `pip install "edgerm-core[testing]"`, and nothing else: no conftest, no marks, no settings. Subclass
the suite of your kind in a test module, as `Test…`, give the fixtures that its docstring names, run pytest.
"""

from __future__ import annotations

from typing import Final

import pytest

KITS: Final = {
    "commands": "command.CommandContract",
    "transports": "transport.TransportContract",
    "stores": "store.StoreContract",
    "schedulers": "scheduler.SchedulerContract",
    "observers": "observer.ObserverContract",
    "executors": "executor.ExecutorContract",
    "device_drivers": "device_driver.DeviceDriverContract",
}
"""Hook to the suite of what it provides, below this package. `plugin.PluginContract` is for all kinds."""

# So that a failing `assert` of a suite shows its values, wherever the suite is run.
pytest.register_assert_rewrite(*(f"{__name__}.{kit.partition('.')[0]}" for kit in KITS.values()))
pytest.register_assert_rewrite(f"{__name__}.plugin")
