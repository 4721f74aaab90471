"""What this machine can run, found out without loading wasmtime (its library costs 10 MiB)."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from typing import Final

from edgerm_core.agents import Fingerprint

NAME: Final = "wasm"

MACHINES: Final = frozenset({"x86_64", "amd64", "aarch64", "arm64"})
"""Processors that wasmtime has packages for."""

CAPABILITIES: Final = {
    "mem_limit": True,
    "cpu_limit": True,
    "logs": True,
    "results": True,
    "signals": False,
    "survives_agent_restart": False,
}


def wasmtime_version() -> str:
    """Return the installed version; empty if wasmtime is not installed."""
    try:
        return importlib.metadata.version("wasmtime")
    except importlib.metadata.PackageNotFoundError:
        return ""


def take_fingerprint(problem: str = "") -> Fingerprint:
    """Return what works here.

    Parameters:
        problem: why wasmtime could not be loaded, if that has been tried.
    """
    version = wasmtime_version()
    if not version:
        problem = "wasmtime is not installed; install it with: pip install edgerm-executor-wasm"
    elif sys.maxsize <= 1 << 32 or platform.machine().lower() not in MACHINES:
        problem = f"wasmtime has no package for this processor ({platform.machine()}, 64 bit needed)"
    return Fingerprint(
        name=NAME,
        version=f"wasmtime {version}" if version else "",
        healthy=not problem,
        problem=problem,
        capabilities=CAPABILITIES,
        attributes={"wasi": "preview1"},
    )
