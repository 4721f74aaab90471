"""The tutorial works as it is written: its commands, in its order, against daemons of its own."""

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgerm_core.testing.processes import free_url

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
PATIENCE_S = 60.0
"""How long a listing may take to show what the tutorial shows."""

REPEATABLE = re.compile(r"edgerm (agents|ps|logs|story|explain)\b")
"""Commands that only look: asked again until they show it."""

MARK = "--- end of output ---"


def steps() -> list[tuple[str, list[str]]]:
    """Return the commands of all console blocks with the lines expected of each."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", TUTORIAL.read_text(encoding="utf-8"), re.M | re.S):
        lines = iter(block.splitlines())
        for line in lines:
            if not line.startswith("$ "):
                found[-1][1].append(line)
                continue
            command = line[2:]
            if "<<'END'" in command:
                while not command.endswith("\nEND"):
                    command += "\n" + next(lines)
            found.append((command, []))
    return found


def matches(output: list[str], expected: list[str]) -> bool:
    """Return whether each expected line is there in turn; `…` stands for anything."""
    if not expected:
        return True
    text = "\n".join(re.sub(r" +", " ", line.rstrip()) for line in output)
    pattern = "\n".join(
        ".*?".join(re.escape(re.sub(r" +", " ", part)) for part in line.split("…")) for line in expected
    )
    # A line that is only `…` may be several.
    return re.fullmatch(pattern, text, re.S) is not None


class Shell:
    """One bash that is told command after command, as a person would."""

    def __init__(self, cwd: Path, env: dict[str, str]) -> None:
        self._errors = open(cwd / "stderr", "ab")
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )

    def run(self, command: str) -> list[str]:
        """Return the lines that the command printed."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{command}\necho; echo '{MARK}'\n".encode())
        output = b""
        deadline = time.monotonic() + PATIENCE_S
        while MARK.encode() not in output:
            ready, _, _ = select.select([self._bash.stdout], [], [], deadline - time.monotonic())
            assert ready, f"{command}: no end within {PATIENCE_S:g} s"
            piece = self._bash.stdout.read(65536)
            assert piece, f"{command}: the shell ended"
            output += piece
        return output.decode().partition(f"\n{MARK}")[0].rstrip("\n").split("\n")

    def close(self) -> None:
        """End the daemons that were started, then the shell."""
        self.run('for job in $(jobs -p); do kill "$job"; done; wait')
        self._bash.communicate()
        self._errors.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    url = free_url("ws")
    config = tmp_path / "edgerm.toml"
    config.write_text(f'[master]\nlisten = ["{url}"]\n[agent]\nmasters = ["{url}"]\n', encoding="utf-8")
    shell = Shell(
        tmp_path,
        {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "EDGERM_CONFIG": str(config),
            "EDGERM_DATA": str(tmp_path / "data"),
            "EDGERM_MASTER": url,
        },
    )
    yield shell
    shell.close()


def test_the_tutorial_shows_what_it_says(shell: Shell, tmp_path: Path) -> None:
    listing = steps()
    assert len(listing) > 10
    for command, expected in listing:
        output = shell.run(command)
        deadline = time.monotonic() + PATIENCE_S
        while not matches(output, expected):
            assert REPEATABLE.match(command), f"$ {command}\n{output}\nexpected {expected}"
            assert time.monotonic() < deadline, (
                f"$ {command}\n{output}\nexpected {expected}\n{(tmp_path / 'stderr').read_text()}"
            )
            time.sleep(0.2)
            output = shell.run(command)
