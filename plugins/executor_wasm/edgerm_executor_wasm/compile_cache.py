"""Compiled modules on disk, so that a module is compiled once in the life of an agent.

A file's name is `<key>-<SHA-256 of its content>.cwasm`; the key names the module's content, wasmtime's
version, the engine's settings and the processor. Loading compiled code means running it, so nothing
is loaded from a directory that others may write to, nor a file whose content is not what its name says.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import platform
import stat
import time
from pathlib import Path
from typing import Final

import wasmtime

from edgerm_core.ids import BlobId
from edgerm_executor_wasm.engine import Host
from edgerm_executor_wasm.fingerprint import wasmtime_version

log = logging.getLogger(__name__)

TEMPORARY_KEEP_S: Final = 3_600.0
"""A file that is still being written after this was left behind by a crash."""

_SUFFIX: Final = ".cwasm"
_TEMPORARY: Final = ".tmp"
_counter = itertools.count()


class CompileCache:
    """A directory of compiled modules. Never raises for the disk's sake: without it, modules are compiled.

    May be used by several threads, and the directory by several agents of one user.

    Parameters:
        directory: made if it is not there.
        limit_bytes: of all files; the least recently used go first.
        host: whose engine the modules are for.
    """

    def __init__(self, directory: Path, limit_bytes: int, host: Host) -> None:
        self._limit_bytes = limit_bytes
        self._engine = host.engine
        self._salt = f"{wasmtime_version()}|{platform.machine()}|{host.settings}".encode()
        self._directory: Path | None = directory if _is_private(directory) else None

    def load(self, blob: BlobId) -> wasmtime.Module | None:
        """Return the compiled module; None if it has to be compiled."""
        if self._directory is None:
            return None
        key = self._key(blob)
        try:
            found = [path for path in self._directory.iterdir() if path.name.startswith(key)]
        except OSError:
            return None
        for path in found:
            if path.suffix != _SUFFIX:
                continue
            try:
                if _checksum(path) == path.name[len(key) + 1 : -len(_SUFFIX)]:
                    module = wasmtime.Module.deserialize_file(self._engine, str(path))
                    os.utime(path)
                    return module
                log.warning("compiled module %s is damaged and is compiled again", path)
            except (OSError, wasmtime.WasmtimeError) as error:
                log.warning("compiled module %s cannot be used and is compiled again: %s", path, error)
            path.unlink(missing_ok=True)
        return None

    def save(self, blob: BlobId, module: wasmtime.Module) -> None:
        """Keep a compiled module, and remove what has not been used for longest."""
        if self._directory is None:
            return
        temporary = self._directory / f"{os.getpid()}-{next(_counter)}{_TEMPORARY}"
        try:
            data = module.serialize()
            if len(data) > self._limit_bytes:
                return
            # No fsync: what a power cut leaves is told from its checksum.
            temporary.write_bytes(data)
            name = f"{self._key(blob)}-{hashlib.sha256(data).hexdigest()}{_SUFFIX}"
            temporary.rename(self._directory / name)
            self._shrink()
        except OSError as error:
            log.warning("compiled module cannot be kept in %s: %s", self._directory, error)
            temporary.unlink(missing_ok=True)

    def _key(self, blob: BlobId) -> str:
        return hashlib.sha256(blob + self._salt).hexdigest()[:32]

    def _shrink(self) -> None:
        assert self._directory is not None
        files: list[tuple[float, int, Path]] = []
        for path in self._directory.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.suffix == _SUFFIX:
                files.append((status.st_mtime, status.st_size, path))
            elif path.suffix == _TEMPORARY and time.time() - status.st_mtime > TEMPORARY_KEEP_S:
                path.unlink(missing_ok=True)
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._limit_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def _is_private(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat(follow_symlinks=False)
    except OSError as error:
        log.warning("no compiled modules are kept: %s", error)
        return False
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        log.warning(
            "no compiled modules are kept: %s must be a directory that only this agent's user can write to",
            directory,
        )
        return False
    return True


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
