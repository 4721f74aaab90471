"""What mip installs onto a board is all that the agent needs, and nothing else."""

from __future__ import annotations

import functools
import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgerm_core.testing.processes import Cluster
from tests.micropython.conftest import MICROPYTHON, SCRIPT_S, SOURCES, UNIX_PORT, Board, environment


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    """The package on a web server."""
    handler = functools.partial(Quiet, directory=str(SOURCES))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/package.json"
        server.shutdown()
        thread.join()


def test_the_package_names_every_file() -> None:
    package = json.loads((SOURCES / "package.json").read_text())
    files = {str(path.relative_to(SOURCES)) for path in SOURCES.glob("edgerm/**/*.py")}
    assert {target for target, _ in package["urls"]} == files
    assert all(target == url for target, url in package["urls"])


def test_mip_installs_it_and_the_board_joins_with_it(tmp_path: Path, url: str, cluster: Cluster) -> None:
    library = tmp_path / "flash"
    subprocess.run(
        [UNIX_PORT, "-m", "mip", "install", "--target", str(library), url],
        env=environment(library),
        timeout=SCRIPT_S,
        check=True,
        capture_output=True,
    )
    board = Board(tmp_path / "board", library, master=cluster.urls["coap"])
    try:
        board.start("128k")  # Sources take more to compile than the agent then has.
        cluster.wait("it is there", lambda: cluster.agent("board").get("connected") is True)
    finally:
        board.cut_power()


def test_the_examples_are_what_the_agent_understands(tmp_path: Path, library: Path) -> None:
    script = (
        f"from edgerm import config; print(config.load('{SOURCES}/examples/edgerm_config.json')['name'])"
    )
    done = subprocess.run(
        [MICROPYTHON, "-c", script],
        env=environment(library),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == "greenhouse-1"
    compile((SOURCES / "examples" / "main.py").read_text(), "main.py", "exec")
