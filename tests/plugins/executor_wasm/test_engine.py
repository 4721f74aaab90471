"""The engine's settings on machines with little address space."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from edgerm_executor_wasm import engine as engine_file
from edgerm_executor_wasm.engine import Host, address_space

if TYPE_CHECKING:
    from tests.plugins.executor_wasm.conftest import Rig


def virtual_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[0]) * 4096


def test_address_space_of_this_machine_is_found() -> None:
    assert address_space() > 1 << 32


@pytest.mark.anyio
async def test_little_address_space_holds_many_sleeping_runs(
    make_rig: Callable[[], Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_file, "address_space", lambda: 1 << 39)
    assert Host().settings.endswith("small addresses")
    rig = make_rig()
    before = virtual_bytes()
    for _ in range(20):
        await rig.start(rig.launch("sleeps"))
    assert (await rig.run(rig.launch("memory", "grow", 3))).result == b"1"
    assert virtual_bytes() - before < 4 << 30
    await rig.close()
