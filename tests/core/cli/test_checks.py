from __future__ import annotations

from pathlib import Path

import pytest

from edgerm_core.agents import Fingerprint
from edgerm_core.cli import checks
from edgerm_core.cli.checks import Check
from edgerm_core.config import Config
from edgerm_core.errors import PluginError
from edgerm_core.interfaces import Provider
from edgerm_core.plugins import PluginInfo, Plugins
from edgerm_core.testing.fakes import FakeExecutor

pytestmark = pytest.mark.anyio


def test_python_that_is_too_old() -> None:
    assert checks.check_python((3, 11, 2)).status == "ok"
    assert checks.check_python((3, 9, 0)).status == "missing"


@pytest.mark.parametrize(
    ("now", "sync_state", "status"),
    [
        (0.0, 0, "missing"),
        (1_790_000_000.0, 5, "warn"),
        (1_790_000_000.0, 0, "ok"),
        (1_790_000_000.0, None, "ok"),
    ],
)
def test_clock(now: float, sync_state: int | None, status: str) -> None:
    assert checks.check_clock(now, sync_state).status == status


def test_sync_state_of_this_machine_is_one_that_adjtimex_knows() -> None:
    state = checks.read_sync_state()
    assert state is None or -1 <= state <= 5


def test_disk_that_is_there_or_can_be_made(tmp_path: Path) -> None:
    check = checks.check_disk("disk-agent", tmp_path / "a" / "b")
    assert check.status == "ok"
    assert "MiB free" in check.detail
    assert not (tmp_path / "a").exists()


def test_disk_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = checks.check_disk("disk-agent", tmp_path / "file" / "b")
    assert check.status == "missing"
    assert "--data-dir" in check.fix


def executor(fingerprint: Fingerprint) -> FakeExecutor:
    fake = FakeExecutor(fingerprint.name)
    fake.fingerprinted = fingerprint
    return fake


def plugins_with(*providers: Provider[object]) -> Plugins:
    plugins = Plugins(Config())
    plugins._providers.update({("executor", provider.name): provider for provider in providers})
    return plugins


async def test_executors_say_what_they_lack() -> None:
    def broken(section: object) -> object:
        raise PluginError("gpu", "no driver: install one")

    good = Fingerprint("wasm", "wasmtime 1", capabilities={"a": True, "b": False})
    bad = Fingerprint("docker", healthy=False, problem="start it")
    wasm, docker = executor(good), executor(bad)
    plugins = plugins_with(
        Provider("wasm", lambda _: wasm),
        Provider("docker", lambda _: docker),
        Provider("gpu", broken),
    )
    found = {check.name: check for check in await checks.check_executors(plugins)}
    assert found["executor-wasm"] == Check("executor-wasm", "ok", "wasmtime 1 (without b)")
    assert (found["executor-docker"].status, found["executor-docker"].fix) == ("missing", "start it")
    assert "no driver" in found["executor-gpu"].detail
    assert wasm.closed
    assert docker.closed


async def test_known_but_absent_executors_are_named_with_the_way_to_get_them() -> None:
    found = {check.name: check for check in await checks.check_executors(plugins_with())}
    assert found["executor-process"].fix == "if needed: pip install edgerm-executor-process"


def test_broken_transport_plugin_is_named() -> None:
    plugins = plugins_with()
    plugins.infos.append(
        PluginInfo("transport-ws", "edgerm-transport-ws", "1", status="broken", problem="old")
    )
    found = {check.name: check for check in checks.check_transports(plugins)}
    assert found["transport-ws"] == Check("transport-ws", "missing", "broken", "old")


def test_cgroups_are_looked_at_in_four_lines() -> None:
    names = [check.name for check in checks.check_cgroups()]
    assert names == ["cgroups", "cgroup-cpu", "cgroup-memory", "cgroup-pids"]
