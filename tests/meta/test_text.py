"""What the files of the repository may not say: where they were written, or where packages come from."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Written in two parts, so that this file may stand among those it looks at.
FORBIDDEN = re.compile(
    "|".join(
        (
            r"(?<![\w.])/wor" + r"k/",
            r"(?<![\w.])/roo" + r"t/",
            r"index-" + r"url",
            r"find-" + r"links",
            r"pypi\." + r"org",
            r"files\.python" + r"hosted",
            r"registry\.npm" + r"js",
            r"deb\.debi" + r"an\.org",
        )
    )
)


def tracked() -> list[Path]:
    """Return what git tracks or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    return [
        ROOT / name.decode() for name in listed.split(b"\0") if name and (ROOT / name.decode()).is_file()
    ]


def test_no_file_names_a_machine_or_a_package_index() -> None:
    files = tracked()
    assert ROOT / "pyproject.toml" in files
    found: list[str] = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if match := FORBIDDEN.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert found == []


def test_lock_files_of_other_tools_are_not_here() -> None:
    assert [
        path.name for path in tracked() if path.name in ("uv.lock", "poetry.lock", "Pipfile.lock")
    ] == []


def test_shell_scripts_parse_and_can_be_run() -> None:
    for path in (ROOT / ".ci" / "run",):
        assert path.stat().st_mode & 0o111
        subprocess.run(["bash", "-n", str(path)], check=True)
