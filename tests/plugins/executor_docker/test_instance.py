"""One engine, one machine's boot, and the next."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from edgerm_executor_docker.api import Engine as Api
from edgerm_executor_docker.instance import boot_id, peer_instance, why_ended

from .engine import DockerEngine

pytestmark = pytest.mark.anyio


def test_boot() -> None:
    assert len(boot_id()) == 36
    assert boot_id() == boot_id()


def test_process_behind_a_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as own, socket.socket(socket.AF_UNIX) as connection:
        own.bind(str(tmp_path / "own"))
        own.listen()
        connection.connect(str(tmp_path / "own"))
        found = peer_instance(connection)
        assert found == peer_instance(connection)
    pid, _, ticks = found.partition(".")
    assert Path(f"/proc/{pid}").samefile("/proc/self")
    assert int(ticks) > 0


async def test_engine_is_another_after_its_restart(new_engine: Callable[..., DockerEngine]) -> None:
    engine = new_engine()
    api = Api(lambda: str(engine.socket), 30.0)
    first = await api.instance()
    assert first
    assert await api.instance() == first
    await anyio.to_thread.run_sync(engine.restart)
    assert await api.instance() not in ("", first)
    api.close()


@pytest.mark.parametrize(
    ("boot", "engine", "survives", "why"),
    [
        ("b", "e", False, ""),
        ("b", "e", True, ""),
        ("other", "e", False, "machine"),
        ("other", "e", True, "machine"),
        ("b", "other", False, "engine"),
        ("b", "other", True, ""),
        ("", "", False, "engine"),
        ("", "", True, ""),
    ],
)
def test_what_ended_a_container(boot: str, engine: str, survives: bool, why: str) -> None:
    found = why_ended(boot, engine, "b", "e", survives)
    assert bool(found) == bool(why)
    assert why in found
