"""What the tasks here use, told to the master when it has changed: for people, beside the state machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from edgerm_core.agent.events import RunId
from edgerm_core.agent.run import Key
from edgerm_core.attributes import Attributes
from edgerm_core.ids import SessionId
from edgerm_core.interfaces import TaskStats
from edgerm_core.limits import USAGE_EVERY_S, USAGE_TASKS
from edgerm_core.messages import TaskUsage, Usage

CPU_STEP_MS: Final = 10
MEM_STEP: Final = 16
NET_STEP_BYTES: Final = 512
"""What counts as a change: 10 ms of processor, 1/16 of the memory, half a KiB. A task that sleeps costs
the link nothing."""


def usage_every_s(configured: float | None, attributes: Attributes) -> float:
    """Return how often to measure, in seconds; 0: never."""
    if configured is not None:
        return configured
    return 0.0 if attributes.get("link.class") == "constrained" else USAGE_EVERY_S


class UsageReports:
    """Remembers what the master was told in this session."""

    def __init__(self) -> None:
        self._session = SessionId(0)
        self._told: dict[Key, TaskUsage] = {}

    def changed(self, session: SessionId, stats: Mapping[RunId, TaskStats]) -> list[Usage]:
        """Return what is to be sent.

        Parameters:
            session: the current session; what was told in another one does not count.
            stats: of all that runs now.
        """
        if session != self._session:
            self._session = session
            self._told.clear()
        usages = {(run.task_id, run.attempt): _usage(run, figures) for run, figures in stats.items()}
        news = [usage for key, usage in usages.items() if _differs(self._told.get(key), usage)]
        self._told = {key: told for key, told in self._told.items() if key in usages}
        self._told.update(((usage.task_id, usage.attempt), usage) for usage in news)
        return list(_messages(news))


def _messages(usages: list[TaskUsage]) -> Iterable[Usage]:
    for start in range(0, len(usages), USAGE_TASKS):
        yield Usage(tuple(usages[start : start + USAGE_TASKS]))


def _usage(run: RunId, stats: TaskStats) -> TaskUsage:
    return TaskUsage(
        run.task_id,
        run.attempt,
        None if stats.cpu_s is None else int(stats.cpu_s * 1000),
        None if stats.mem_bytes is None else stats.mem_bytes >> 10,
        None if stats.mem_peak_bytes is None else stats.mem_peak_bytes >> 10,
        stats.net_rx_bytes,
        stats.net_tx_bytes,
    )


def _differs(told: TaskUsage | None, now: TaskUsage) -> bool:
    if told is None:
        return any(
            figure is not None for figure in (now.cpu_ms, now.mem_kib, now.net_rx_bytes, now.net_tx_bytes)
        )
    return (
        _step(told.cpu_ms, now.cpu_ms) >= CPU_STEP_MS
        or _step(told.mem_kib, now.mem_kib) * MEM_STEP > (told.mem_kib or 0)
        or _step(told.net_rx_bytes, now.net_rx_bytes) >= NET_STEP_BYTES
        or _step(told.net_tx_bytes, now.net_tx_bytes) >= NET_STEP_BYTES
    )


def _step(before: int | None, after: int | None) -> int:
    return abs((after or 0) - (before or 0))
