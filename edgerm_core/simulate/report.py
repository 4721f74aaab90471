"""The figures of an experiment, as plain values for `--json` and the plot, and as tables for people.

Times are virtual seconds. What happened on the machines is taken from the machines, and what the master
made of it from its books, so that both can be compared: after an outage the master hears late.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from edgerm_core.cli.output import Column, format_table
from edgerm_core.ids import TaskId
from edgerm_core.master.explain import explain_task
from edgerm_core.master.records import TaskRecord
from edgerm_core.simulate.agents import SimulatedAgent
from edgerm_core.simulate.experiment import Experiment, Sample
from edgerm_core.simulate.links import OVERHEADS
from edgerm_core.tasks import Reason, TaskState
from edgerm_core.testing.simulator.executors import RealRun
from edgerm_core.testing.simulator.network import DOWN, UP
from edgerm_core.testing.simulator.world import EPOCH

Row = dict[str, Any]

MAX_REASONS: Final = 20
"""Different reasons why tasks never ran; more say nothing new."""


def report(experiment: Experiment) -> Row:
    """Return all figures as plain values. Equal files make equal figures."""
    runs = _runs(experiment)
    records = experiment.state.tasks.values()
    tasks = [_Task(experiment, record, runs.get(int(record.id), [])) for record in records]
    ends = [task.told_at for task in tasks if task.told_at is not None]
    begins = [arrival.at_s for arrival in experiment.scenario.arrivals]
    finished = all(task.record.state.terminal for task in tasks)
    return {
        "seed": experiment.scenario.cluster.seed,
        "scheduler": experiment.scheduler,
        "simulated_s": _rounded(experiment.ended_s),
        "complete": finished,
        "makespan_s": _rounded(max(ends) - min(begins)) if ends and finished else None,
        "tasks": _task_figures(tasks),
        "frameworks": [
            _framework(
                experiment, index, name, [each for each in tasks if each.record.framework_id == name]
            )
            for index, name in enumerate(experiment.frameworks)
        ],
        "never_ran": _never_ran(experiment, tasks),
        "refused": [
            {"framework": framework.name, "key": submission.key, "why": submission.failed}
            for framework in experiment.frameworks.values()
            for submission in framework.submissions.values()
            if submission.failed
        ],
        "groups": [
            _group(experiment, group.name, [experiment.agents[name] for name in group.agents()])
            for group in experiment.scenario.cluster.agents
        ],
        "agents": [
            _agent(experiment, index, agent) for index, agent in enumerate(experiment.agents.values())
        ],
        "outages": [
            {
                "agents": experiment.scenario.cluster.affected(outage),
                "what": outage.what,
                "from_s": outage.from_s,
                "for_s": outage.for_s,
            }
            for outage in experiment.scenario.cluster.outage
        ],
        "overhead_bytes": {
            name: {
                "frame_up": each.frame[UP],
                "answer_to_frame_up": each.answer[UP],
                "frame_down": each.frame[DOWN],
                "answer_to_frame_down": each.answer[DOWN],
                "dialling_up": each.dialling[UP],
                "dialling_down": each.dialling[DOWN],
            }
            for name, each in OVERHEADS.items()
        },
        "samples": _series(experiment.samples, list(experiment.frameworks), list(experiment.agents)),
    }


def _runs(experiment: Experiment) -> dict[int, list[tuple[SimulatedAgent, RealRun]]]:
    """Return every run that there ever was, by task."""
    found: dict[int, list[tuple[SimulatedAgent, RealRun]]] = {}
    for agent in experiment.agents.values():
        for (task_id, _), runs in agent.host.history.items():
            found.setdefault(task_id, []).extend((agent, run) for run in runs)
    return found


class _Task:
    """A task with what really happened to it."""

    def __init__(
        self, experiment: Experiment, record: TaskRecord, runs: list[tuple[SimulatedAgent, RealRun]]
    ) -> None:
        self.record = record
        self.runs = len(runs)
        arrived = experiment.arrivals[record.key].at_s
        self.waited_s = min(run.started_at for _, run in runs) - arrived if runs else None
        self.told_at = record.changed_at - EPOCH if record.state.terminal else None
        ended = [agent.busy_host.ended_at[run.key] for agent, run in runs if run.result and run.result.ok]
        late = self.told_at is not None and record.state is TaskState.FINISHED and ended
        self.told_after_s = self.told_at - min(ended) if late and self.told_at is not None else None
        attempts = {(agent.name, run.key[1]) for agent, run in runs}
        self.restarts = len(runs) - len(attempts)
        entries = record.story
        self.away = sum(1 for entry in entries if entry.state is TaskState.UNREACHABLE)
        self.returned = sum(1 for entry in entries if entry.reason == Reason.AGENT_RETURNED)


def _task_figures(tasks: Sequence[_Task]) -> Row:
    states = [task.record.state for task in tasks]
    waits = [task.waited_s for task in tasks if task.waited_s is not None]
    late = [task.told_after_s for task in tasks if task.told_after_s is not None]
    return {
        "submitted": len(tasks),
        "states": {state.name: states.count(state) for state in TaskState if state in states},
        "finished": states.count(TaskState.FINISHED),
        "failed": states.count(TaskState.FAILED),
        "never_ran": sum(1 for task in tasks if not task.runs),
        "waiting_s": _percentiles(waits),
        "told_after_s": _percentiles(late),
        "runs": sum(task.runs for task in tasks),
        "restarted": sum(task.restarts for task in tasks),
        "tried_again": sum(task.record.failures for task in tasks),
        "lost": sum(task.record.losses for task in tasks),
        "unreachable": sum(task.away for task in tasks),
        "returned": sum(task.returned for task in tasks),
    }


def _framework(experiment: Experiment, index: int, name: str, tasks: list[_Task]) -> Row:
    spec = experiment.scenario.workload.framework[index]
    shares = [sample.frameworks[index].share for sample in experiment.samples]
    contended_s = experiment.meter.contended_s[index]
    contended = experiment.meter.contended[index] / contended_s if contended_s else None
    return {
        "name": name,
        "weight": spec.weight,
        "role": spec.role,
        **_task_figures(tasks),
        "share": _mean(shares),
        "share_contended": None if contended is None else _rounded(contended, 4),
        "contended_s": _rounded(contended_s),
        "share_max": _rounded(max(shares, default=0.0)),
    }


def _never_ran(experiment: Experiment, tasks: list[_Task]) -> list[Row]:
    """Return why tasks never ran, and how many for each reason."""
    counts: dict[tuple[str, str, str, str], int] = {}
    for task in tasks:
        if not task.runs:
            record = task.record
            explained = explain_task(experiment.state, experiment.state.tasks[TaskId(record.id)])
            why = (record.framework_id, record.spec.name, record.state.name, explained["summary"])
            counts[why] = counts.get(why, 0) + 1
    ordered = sorted(counts, key=lambda why: (-counts[why], why))
    return [
        {"framework": why[0], "task": why[1], "state": why[2], "why": why[3], "tasks": counts[why]}
        for why in ordered[:MAX_REASONS]
    ]


# --- agents and links -------------------------------------------------------------------------


def _agent(experiment: Experiment, index: int, agent: SimulatedAgent) -> Row:
    away = [sample.agents[index].away for sample in experiment.samples]
    return {
        "name": agent.name,
        "group": agent.group.name,
        "busy": _busy(experiment, [agent]),
        "runs": sum(len(runs) for runs in agent.host.history.values()),
        "away": _mean(away),
        "connections": agent.metered.dialled,
        "transport": agent.group.link.transport,
        **_traffic([agent]),
    }


def _group(experiment: Experiment, name: str, agents: list[SimulatedAgent]) -> Row:
    names = list(experiment.agents)
    indices = [names.index(agent.name) for agent in agents]
    away = [sample.agents[index].away for sample in experiment.samples for index in indices]
    return {
        "name": name,
        "agents": len(agents),
        "busy": _busy(experiment, agents),
        "runs": sum(len(runs) for agent in agents for runs in agent.host.history.values()),
        "away": _mean(away),
        "transport": agents[0].group.link.transport,
        **_traffic(agents),
    }


def _busy(experiment: Experiment, agents: list[SimulatedAgent]) -> Row:
    """Return by resource the part of all that there was, over the whole time, that runs held."""
    now = experiment.ended_s
    parts: Row = {}
    for name, milli in sorted(agents[0].totals.quantities().items()):
        held = sum(agent.busy_host.busy_until(now).get(name, 0.0) for agent in agents)
        parts[name] = _rounded(held / (milli * now * len(agents)), 4) if now else 0.0
    return parts


def _traffic(agents: list[SimulatedAgent]) -> Row:
    ways = (("up", UP), ("down", DOWN))
    return {
        f"{what}_{name}": sum(getattr(agent.metered, attribute)[way] for agent in agents)
        for what, attribute in (("frames", "frames"), ("payload_bytes", "payload"), ("bytes", "carried"))
        for name, way in ways
    }


# --- over time --------------------------------------------------------------------------------


def _series(samples: Sequence[Sample], frameworks: list[str], agents: list[str]) -> Row:
    return {
        "at_s": [_rounded(sample.at_s) for sample in samples],
        "frameworks": {
            name: {
                "share": [_rounded(sample.frameworks[index].share, 4) for sample in samples],
                "placed": [_rounded(sample.frameworks[index].placed, 2) for sample in samples],
                "waiting": [_rounded(sample.frameworks[index].waiting, 2) for sample in samples],
            }
            for index, name in enumerate(frameworks)
        },
        "agents": {
            name: {
                "busy": [_rounded(sample.agents[index].busy, 3) for sample in samples],
                "away": [_rounded(sample.agents[index].away, 2) for sample in samples],
            }
            for index, name in enumerate(agents)
        },
    }


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least `part` of all are not larger than (nearest rank)."""
    ordered = sorted(values)
    rank = max(1, -(-int(part * len(ordered) * 1_000_000) // 1_000_000))
    return ordered[min(rank, len(ordered)) - 1]


def _percentiles(values: Sequence[float]) -> Row | None:
    if not values:
        return None
    return {
        "p50": _rounded(percentile(values, 0.5)),
        "p99": _rounded(percentile(values, 0.99)),
        "max": _rounded(max(values)),
    }


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return _rounded(sum(found) / len(found), 4) if found else 0.0


def _rounded(value: float, digits: int = 3) -> float:
    return round(float(value), digits)


# --- for people -------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """Return `340 ms`, `12.3 s`, `4 min 10 s` or `6 h 02 min`; `-` for None."""
    if seconds is None:
        return "-"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    whole = round(seconds / 60)
    return f"{whole // 60} h {whole % 60:02} min"


def size(count: float) -> str:
    """Return `512 B`, `1.5 KiB`, `2.0 MiB`, …"""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} GiB"


def _part(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f}%"


def _times(row: Mapping[str, Any], key: str, which: str) -> str:
    return duration(row[key][which]) if row[key] else "-"


FRAMEWORKS: Final = (
    Column("FRAMEWORK", lambda row: row["name"]),
    Column("WEIGHT", lambda row: f"{row['weight']:g}", right=True),
    Column("TASKS", lambda row: str(row["submitted"]), right=True),
    Column("FINISHED", lambda row: str(row["finished"]), right=True),
    Column("FAILED", lambda row: str(row["failed"]), right=True),
    Column("WAIT P50", lambda row: _times(row, "waiting_s", "p50"), right=True),
    Column("P99", lambda row: _times(row, "waiting_s", "p99"), right=True),
    Column("HEARD P50", lambda row: _times(row, "told_after_s", "p50"), right=True),
    Column("P99", lambda row: _times(row, "told_after_s", "p99"), right=True),
    Column("SHARE", lambda row: _part(row["share"]), right=True),
    Column("CONTENDED", lambda row: _part(row["share_contended"]), right=True),
)
TROUBLE: Final = (
    Column("FRAMEWORK", lambda row: row["name"]),
    Column("RUNS", lambda row: str(row["runs"]), right=True),
    Column("RESTARTED", lambda row: str(row["restarted"]), right=True),
    Column("TRIED AGAIN", lambda row: str(row["tried_again"]), right=True),
    Column("UNREACHABLE", lambda row: str(row["unreachable"]), right=True),
    Column("RETURNED", lambda row: str(row["returned"]), right=True),
    Column("LOST", lambda row: str(row["lost"]), right=True),
    Column("NEVER RAN", lambda row: str(row["never_ran"]), right=True),
)
GROUPS: Final = (
    Column("AGENTS", lambda row: row["name"]),
    Column("COUNT", lambda row: str(row["agents"]), right=True),
    Column("BUSY", lambda row: " ".join(f"{k}={v * 100:.1f}%" for k, v in row["busy"].items())),
    Column("AWAY", lambda row: _part(row["away"]), right=True),
    Column("RUNS", lambda row: str(row["runs"]), right=True),
    Column("LINK", lambda row: row["transport"]),
    Column("UP", lambda row: size(row["bytes_up"] / row["agents"]), right=True),
    Column("DOWN", lambda row: size(row["bytes_down"] / row["agents"]), right=True),
    Column("FRAMES UP", lambda row: size(row["payload_bytes_up"] / row["agents"]), right=True),
    Column("DOWN", lambda row: size(row["payload_bytes_down"] / row["agents"]), right=True),
)
AGENTS: Final = (
    Column("AGENT", lambda row: row["name"]),
    *GROUPS[2:6],
    Column("UP", lambda row: size(row["bytes_up"]), right=True),
    Column("DOWN", lambda row: size(row["bytes_down"]), right=True),
    Column("FRAMES UP", lambda row: size(row["payload_bytes_up"]), right=True),
    Column("DOWN", lambda row: size(row["payload_bytes_down"]), right=True),
)
NEVER_RAN: Final = (
    Column("NEVER RAN", lambda row: f"{row['framework']}/{row['task']}"),
    Column("TASKS", lambda row: str(row["tasks"]), right=True),
    Column("STATE", lambda row: row["state"]),
    Column("WHY", lambda row: row["why"]),
)

LEGEND: Final = """\
WAIT: from submission to the first start. HEARD: from a task's end until the master knew.
SHARE: mean dominant share; CONTENDED: while this framework and another one had tasks that waited.
RESTARTED: on its agent; TRIED AGAIN: elsewhere, after a failure; LOST: runs given up with their agents.
UP and DOWN: bytes per agent with what the transport adds; FRAMES: without.
"""


def headline(figures: Row) -> str:
    """Return in a sentence or two what came out."""
    tasks = figures["tasks"]
    took = duration(figures["makespan_s"])
    if figures["complete"]:
        text = f"All {tasks['submitted']} tasks ended, {took} after the first was submitted"
    else:
        ended = sum(count for state, count in tasks["states"].items() if TaskState[state].terminal)
        text = f"{ended} of {tasks['submitted']} tasks ended within {duration(figures['simulated_s'])}"
    refused = len(figures["refused"])
    text += f"; {refused} submissions refused" if refused else ""
    return f"{text} (scheduler {figures['scheduler']}, seed {figures['seed']})."


def tables(figures: Row, *, every_agent: bool) -> str:
    """Return the figures as text for a terminal, with a line for each agent or only for each group."""
    parts = [headline(figures) + "\n"]
    parts += [format_table(FRAMEWORKS, figures["frameworks"]), format_table(TROUBLE, figures["frameworks"])]
    parts.append(format_table(GROUPS, figures["groups"]))
    if every_agent:
        parts.append(format_table(AGENTS, figures["agents"]))
    if figures["never_ran"]:
        parts.append(format_table(NEVER_RAN, figures["never_ran"]))
    for refused in figures["refused"][:MAX_REASONS]:
        parts.append(f"{refused['key']} was refused: {refused['why']}\n")
    return "\n".join([*parts, LEGEND])
