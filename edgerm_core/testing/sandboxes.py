"""A sandbox for tests of executors: three directories below one that the test owns."""

from __future__ import annotations

from pathlib import Path

from edgerm_core.limits import LOG_RING_BYTES


class DirectorySandbox:
    """A `Sandbox` below `base`. Directories appear when first asked for; the test removes `base`."""

    def __init__(self, base: Path, log_limit_bytes: int = LOG_RING_BYTES) -> None:
        self._base = base
        self._log_limit_bytes = log_limit_bytes
        self.reports: list[str] = []

    @property
    def work_dir(self) -> Path:
        return self._directory("work")

    @property
    def state_dir(self) -> Path:
        return self._directory("state")

    @property
    def log_dir(self) -> Path:
        return self._directory("logs")

    @property
    def log_limit_bytes(self) -> int:
        return self._log_limit_bytes

    def report(self, text: str) -> None:
        self.reports.append(text)

    def _directory(self, name: str) -> Path:
        path = self._base / name
        path.mkdir(parents=True, exist_ok=True)
        return path
