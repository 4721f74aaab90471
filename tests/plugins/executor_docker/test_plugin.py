"""The hook, and what it costs to load it."""

from __future__ import annotations

import subprocess
import sys

from edgerm_executor_docker import plugin
from edgerm_executor_docker.config import DockerConfig

HEAVY = "('docker', 'requests', 'urllib3')"


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_one_executor_is_provided() -> None:
    (provider,) = plugin.executors()
    assert provider.name == "docker"
    assert provider.config_type is DockerConfig


def test_listing_plugins_loads_no_library_of_the_engine() -> None:
    code = f"""
import sys
import edgerm_executor_docker.plugin as plugin
list(plugin.executors())
print([name for name in sys.modules if name.split('.')[0] in {HEAVY}])
"""
    assert run_python(code) == "[]"


def test_agent_without_an_engine_never_loads_the_library() -> None:
    code = f"""
import sys, anyio
import edgerm_executor_docker.plugin as plugin
from edgerm_executor_docker.config import DockerConfig
(provider,) = plugin.executors()

async def main():
    executor = provider.create(DockerConfig(socket="unix:///nowhere/engine.sock"))
    found = await executor.fingerprint()
    assert not found.healthy and "/nowhere/engine.sock" in found.problem, found
    await executor.close()

anyio.run(main)
print([name for name in sys.modules if name.split('.')[0] in {HEAVY}])
"""
    assert run_python(code) == "[]"
