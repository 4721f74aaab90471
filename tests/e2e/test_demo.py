"""The demonstration, run as a user runs it, with its output in a file."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(330)]


def test_the_demonstration_does_what_it_promises() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgerm_core.cli.main", "demo"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill -9 of node-" in done.stdout
    assert "placed again; the story of one:" in done.stdout
    assert "all 378 figures agree with an independent" in done.stdout
    assert "Where to go next:" in done.stdout
    assert "\033" not in done.stdout, "no terminal codes in a file"
