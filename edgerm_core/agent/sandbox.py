"""The places of tasks on the agent's disk.

    <data_dir>/tasks/t<id>.<attempt>/work    working directory; goes when the attempt has ended
                                    /state   the executor's own files; goes with it
                                    /logs    rings; kept for a while afterwards
                                    /volumes temporary volumes; go with it
    <data_dir>/volumes/<framework>/<name>    persistent volumes

A directory appears when it is first asked for: a task that needs none costs the disk nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from edgerm_core.ids import BlobId, TaskId
from edgerm_core.limits import SANDBOX_KEEP_COUNT, SANDBOX_KEEP_S
from edgerm_core.messages import Launch
from edgerm_core.tasks import Volume

Key = tuple[TaskId, int]

_NAME: Final = re.compile(r"t([1-9][0-9]{0,17})\.([0-9]{1,9})")


class TaskSandbox:
    """The place of one attempt; restarts in place use it again. Implements `interfaces.Sandbox`."""

    def __init__(self, base: Path, log_limit_bytes: int) -> None:
        self._base = base
        self._log_limit_bytes = log_limit_bytes
        self._made: set[str] = set()
        self.has_logs = False
        #: Whoever follows the start that is under way.
        self.on_report: Callable[[str], None] | None = None

    @property
    def touched(self) -> bool:
        """Whether anything but logs may be on the disk."""
        return bool(self._made)

    @property
    def work_dir(self) -> Path:
        """See `Sandbox.work_dir`."""
        return self._directory("work")

    @property
    def state_dir(self) -> Path:
        """See `Sandbox.state_dir`."""
        return self._directory("state")

    @property
    def log_dir(self) -> Path:
        """See `Sandbox.log_dir`. The writer makes it with the first byte."""
        self.has_logs = True
        return self._base / "logs"

    @property
    def log_limit_bytes(self) -> int:
        """See `Sandbox.log_limit_bytes`."""
        return self._log_limit_bytes

    def report(self, text: str) -> None:
        """See `Sandbox.report`."""
        if self.on_report is not None:
            self.on_report(text)

    def prepare(
        self, launch: Launch, blobs: dict[BlobId, Path], volumes_dir: Path
    ) -> tuple[tuple[Volume, Path], ...]:
        """Lay out files and volumes; return the volumes with their directories. Idempotent.

        Raises:
            OSError: if the disk refuses.
        """
        for file in launch.files:
            target = self.work_dir / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            # Removed first: a task may have put a link there in an earlier run, and a link would lead
            # the copy out of the sandbox.
            target.unlink(missing_ok=True)
            shutil.copyfile(blobs[file.blob], target)
            target.chmod(0o755 if file.executable else 0o644)
        places: list[tuple[Volume, Path]] = []
        for index, volume in enumerate(launch.volumes):
            if volume.name:
                place = volumes_dir / launch.framework_id / volume.name
            else:
                place = self._directory("volumes") / str(index)
            place.mkdir(parents=True, exist_ok=True)
            places.append((volume, place))
        return tuple(places)

    def _directory(self, name: str) -> Path:
        path = self._base / name
        if name not in self._made:
            path.mkdir(parents=True, exist_ok=True)
            self._made.add(name)
        return path

    def remove_work(self) -> list[Path]:
        """Remove everything but the logs; return what could not be. Takes as long as the disk."""
        places = [self._base / name for name in ("work", "state", "volumes")]
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
        self._made.clear()
        if not self.has_logs:
            self.remove()
        return [place for place in places if os.path.lexists(place)]

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self._base, ignore_errors=True)


class Sandboxes:
    """All sandboxes of an agent.

    Parameters:
        data_dir: the agent's data directory.
        log_limit_bytes: size of each log ring.
    """

    def __init__(self, data_dir: Path, log_limit_bytes: int) -> None:
        self._tasks_dir = data_dir / "tasks"
        self.volumes_dir = data_dir / "volumes"
        self._log_limit_bytes = log_limit_bytes
        self._live: dict[Key, TaskSandbox] = {}
        self._ended: dict[Key, tuple[float, TaskSandbox]] = {}
        self._latest: dict[TaskId, int] = {}

    def open(self, key: Key) -> TaskSandbox:
        """Return the sandbox of an attempt."""
        sandbox = self._live.get(key)
        if sandbox is None:
            sandbox = self._live[key] = self._make(key)
            self._latest[key[0]] = max(key[1], self._latest.get(key[0], 0))
        return sandbox

    def release(self, key: Key, now: float) -> TaskSandbox | None:
        """The attempt has ended. Return its sandbox if there is something to remove from the disk."""
        sandbox = self._live.pop(key, None)
        if sandbox is None:
            return None
        if sandbox.has_logs:
            self._ended[key] = (now, sandbox)
        else:
            self._drop_latest(key)
        return sandbox if sandbox.touched else None

    def expire(self, now: float) -> list[TaskSandbox]:
        """Return sandboxes whose logs have been kept long enough, to be removed from the disk."""
        expired: list[TaskSandbox] = []
        while self._ended:
            key, (ended_at, sandbox) = next(iter(self._ended.items()))
            if len(self._ended) <= SANDBOX_KEEP_COUNT and ended_at + SANDBOX_KEEP_S > now:
                break
            del self._ended[key]
            self._drop_latest(key)
            expired.append(sandbox)
        return expired

    def logs(self, task_id: TaskId, attempt: int) -> Path | None:
        """Return where the logs of an attempt are kept (0: of the latest one), or None."""
        key = (task_id, attempt or self._latest.get(task_id, 0))
        if key in self._live or key in self._ended:
            return self._tasks_dir / f"t{key[0]}.{key[1]}" / "logs"
        return None

    def is_live(self, task_id: TaskId, attempt: int) -> bool:
        """Return whether the attempt (0: the latest one) may still write to its logs."""
        return (task_id, attempt or self._latest.get(task_id, 0)) in self._live

    def clean(self, live: Iterable[Key], now: float) -> None:
        """At start: take up what an earlier agent process left, and remove what nobody needs."""
        keep = set(live)
        if not self._tasks_dir.is_dir():
            return
        ended: list[tuple[float, Key, TaskSandbox]] = []
        for path in self._tasks_dir.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is None:
                continue
            key = (TaskId(int(match[1])), int(match[2]))
            if key in keep:
                # Its directories are there, and must be removed when it ends.
                sandbox = self.open(key)
                sandbox.has_logs = True
                sandbox._made.update(child.name for child in path.iterdir() if child.name != "logs")
                continue
            sandbox = self._make(key)
            logs = path / "logs"
            sandbox.has_logs = logs.is_dir()
            ended_at = min(logs.stat().st_mtime, now) if sandbox.has_logs else 0.0
            sandbox.remove_work()
            if sandbox.has_logs:
                ended.append((ended_at, key, sandbox))
        for ended_at, key, sandbox in sorted(ended, key=lambda each: each[:2]):
            self._ended[key] = (ended_at, sandbox)
            self._latest[key[0]] = max(key[1], self._latest.get(key[0], 0))
        for sandbox in self.expire(now):
            sandbox.remove()

    def _make(self, key: Key) -> TaskSandbox:
        return TaskSandbox(self._tasks_dir / f"t{key[0]}.{key[1]}", self._log_limit_bytes)

    def _drop_latest(self, key: Key) -> None:
        if self._latest.get(key[0]) == key[1]:
            del self._latest[key[0]]
