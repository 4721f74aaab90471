"""The agent of a small gateway: core, CoAP and WASM, and nothing that these do not need in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgerm_core.testing.processes import cluster_in

pytestmark = pytest.mark.timeout(240)

CONFIG = """\
[master]
heartbeat_s = 0.5

[plugins]
enable = ["memory", "transport-coap", "executor-wasm"]
"""

MASTER_CONFIG = CONFIG.replace('"executor-wasm"', '"executor-wasm", "sqlite", "first-fit"')

HEAVY = {
    *("websockets", "aiocoap", "docker", "requests", "sqlite3", "_sqlite3", "rich", "numpy", "uvloop"),
    *("http.client", "multiprocessing", "xml", "tkinter", "unittest", "pydoc"),
}
"""None of it serves an agent that speaks CoAP over UDP, and each costs memory in megabytes."""

TELLING = """\
import atexit, json, sys
atexit.register(lambda: open(sys.argv[-1], "w").write(json.dumps(sorted(sys.modules))))
from edgerm_core.cli.main import main
main(sys.argv[1:-1])
"""
"""The command line, which leaves the names of all imported modules in the file named last."""

NO_OP = '(module (func (export "run") (result i32) i32.const 7))'


def test_an_agent_on_coap_with_wasm_imports_nothing_it_does_not_need(tmp_path: Path) -> None:
    modules = tmp_path / "modules.json"
    source = tmp_path / "seven.wat"
    source.write_text(NO_OP)
    with cluster_in(tmp_path, MASTER_CONFIG, schemes=("coap",)) as cluster:
        cluster.start_master("--scheduler", "first-fit")
        config = tmp_path / "agent.toml"
        config.write_text(CONFIG)
        command = (
            "agent",
            "--master",
            cluster.url,
            "--name",
            "small",
            "--data-dir",
            str(tmp_path / "small"),
        )
        with open(tmp_path / "small.log", "wb") as log:
            cluster.processes["small"] = subprocess.Popen(
                [sys.executable, "-c", TELLING, "--config", str(config), *command, str(modules)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=cluster.environment,
            )
        cluster.wait("the agent is there", lambda: cluster.agent("small").get("connected") is True)
        done = cluster.edgerm("run", "--wasm", str(source), "--function", "run")
        assert done.stdout.strip() == "7"
        assert cluster.stop("small") == 0
    imported = set(json.loads(modules.read_text()))
    assert "edgerm_transport_coap.connection" in imported, "it spoke CoAP"
    assert "edgerm_executor_wasm.executor" in imported, "it ran WASM"
    assert imported & HEAVY == set()
    foreign = ("edgerm_core.master", "edgerm_core.gateway")
    assert [name for name in imported if name.startswith(foreign)] == []
