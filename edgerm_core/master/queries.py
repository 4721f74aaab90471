"""Listings for operators: rows of plain values, the same for `--json`, for people and for observers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, Final

import msgspec

import edgerm_core
from edgerm_core.errors import SpecError
from edgerm_core.ids import AgentId, FrameworkId, SessionId, TaskId, format_task_id, parse_task_id
from edgerm_core.limits import ANSWER_BYTES, QUERY_DEFAULT_ROWS, QUERY_MAX_ROWS
from edgerm_core.master.explain import explain_task
from edgerm_core.master.records import AgentRecord, FrameworkRecord, TaskRecord
from edgerm_core.master.state import MasterState
from edgerm_core.messages import Answer, Query, RefusalCode
from edgerm_core.resources import Resources, format_milli
from edgerm_core.tasks import TaskState

Row = dict[str, Any]

_encode = msgspec.msgpack.Encoder().encode
"""As large as on the wire, give or take a little, and much faster."""


def answer(state: MasterState, session_id: SessionId, query: Query) -> None:
    """Answer a query, or say what is wrong with it."""
    kind = QUERIES.get(query.kind)
    if kind is None:
        text = f"unknown query {query.kind[:40]!r}: expected one of {', '.join(QUERIES)}"
        state.fail(session_id, query.request_id, RefusalCode.NOT_FOUND, text)
        return
    try:
        rows, total = kind(state, query.args)
    except (SpecError, LookupError) as error:
        text = str(error.args[0]) if error.args else str(error)
        state.fail(session_id, query.request_id, RefusalCode.NOT_FOUND, text)
        return
    except (TypeError, ValueError) as error:
        text = f"query {query.kind}: wrong arguments: {error}"
        state.fail(session_id, query.request_id, RefusalCode.MALFORMED, text)
        return
    state.send(session_id, Answer(query.request_id, tuple(_fitting(rows)), total))


def _fitting(rows: list[Row]) -> list[Row]:
    """Return as many rows as fit into one answer, at least one."""
    size = 0
    for index, row in enumerate(rows):
        size += len(_encode(row))
        if size > ANSWER_BYTES and index:
            return rows[:index]
    return rows


def _page(args: Row) -> slice:
    """Return which rows are wanted. Args: `offset` (rows to leave out), `limit`."""
    limit = int(args.get("limit") or QUERY_DEFAULT_ROWS)
    offset = int(args.get("offset") or 0)
    if limit < 1:
        raise ValueError(f"limit must be 1 to {QUERY_MAX_ROWS}, not {limit}")
    if offset < 0:
        raise ValueError(f"offset must not be negative, not {offset}")
    return slice(offset, offset + min(limit, QUERY_MAX_ROWS))


def _limited(rows: Iterable[Row], args: Row) -> tuple[list[Row], int]:
    page = _page(args)
    everything = list(rows)
    return everything[page], len(everything)


# --- cluster ----------------------------------------------------------------------------------


def cluster(state: MasterState, args: Row) -> tuple[list[Row], int]:
    """One row about everything."""
    states: dict[str, int] = {}
    for task in state.tasks.values():
        states[task.state.name] = states.get(task.state.name, 0) + 1
    row = {
        "master_id": state.master_id,
        "version": edgerm_core.__version__,
        "uptime_s": round(state.now - state.started_at, 3),
        "now": state.now,
        "scheduler": type(state.scheduler).__name__,
        "refused_decisions": state.refused_decisions,
        "agents": len(state.agents),
        "agents_ready": len(state.schedulable),
        "frameworks": len(state.frameworks),
        "tasks": states,
        "totals": {name: milli / 1000 for name, milli in sorted(state.totals.items())},
        "blobs": len(state.blobs),
        "blob_bytes": sum(state.blobs.values()),
    }
    return [row], 1


# --- agents -----------------------------------------------------------------------------------


def agents(state: MasterState, args: Row) -> tuple[list[Row], int]:
    """One row per agent, by name."""
    records = sorted(state.agents.values(), key=lambda agent: (agent.info.name, agent.id))
    return _limited((agent_row(state, agent) for agent in records), args)


def agent_row(state: MasterState, agent: AgentRecord) -> Row:
    """Return one agent as plain values."""
    return {
        "id": agent.id,
        "name": agent.info.name or agent.id,
        "state": agent.state.name,
        "connected": agent.session_id is not None,
        "peer": agent.peer,
        "via": _agent_name(state, agent.via),
        "totals": resources_row(agent.totals),
        "free": resources_row(agent.free),
        "tasks": len(agent.holdings),
        "max_tasks": agent.info.max_tasks,
        "ghosts": len(agent.ghosts),
        "offers": len(agent.offers),
        "drain": agent.drain,
        "attributes": dict(agent.attributes),
        "executors": [
            {
                "name": e.name,
                "version": e.version,
                "healthy": e.healthy,
                "problem": e.problem,
                "capabilities": dict(e.capabilities),
            }
            for e in agent.info.executors
        ],
        "devices": [
            {"id": d.id, "type": d.type, "slots": d.slots, "healthy": d.healthy}
            for d in agent.devices.values()
        ],
        "heartbeat_s": agent.heartbeat_s,
        "last_heard_s": round(max(0.0, state.now - agent.last_heard), 3),
    }


def _agent_name(state: MasterState, agent_id: AgentId | None) -> str:
    agent = state.agents.get(agent_id) if agent_id else None
    return (agent.info.name or agent.id) if agent else (agent_id or "")


def resources_row(resources: Resources) -> Row:
    """Return resources as plain values: numbers, lists of ranges, lists of elements."""
    row: Row = {name: milli / 1000 for name, milli in sorted(resources.scalars.items())}
    row |= {
        name: [f"{low}-{high}" if high > low else str(low) for low, high in ranges]
        for name, ranges in sorted(resources.ranges.items())
    }
    row |= {name: sorted(elements) for name, elements in sorted(resources.sets.items())}
    if resources.devices:
        row["devices"] = dict(sorted(resources.devices.items()))
    return row


# --- frameworks -------------------------------------------------------------------------------


def frameworks(state: MasterState, args: Row) -> tuple[list[Row], int]:
    """One row per framework, by name."""
    records = sorted(state.frameworks.values(), key=lambda f: (f.info.name, f.id))
    return _limited((framework_row(state, framework) for framework in records), args)


def framework_row(state: MasterState, framework: FrameworkRecord) -> Row:
    """Return one framework as plain values."""
    share, dominant = dominant_share(state, framework)
    running = sum(1 for t in framework.live.values() if t.state is TaskState.RUNNING)
    return {
        "id": framework.id,
        "name": framework.info.name or framework.id,
        "role": framework.info.role,
        "weight": framework.info.weight / 1000,
        "state": framework.state.name,
        "pending": sum(1 for t in framework.live.values() if t.state is TaskState.PENDING),
        "running": running,
        "live": len(framework.live),
        "ended": len(framework.ended),
        "offers": len(framework.offers),
        "share": float(share),
        "dominant": dominant,
        "allocated": {name: format_milli(milli) for name, milli in sorted(framework.allocated.items())},
    }


def dominant_share(state: MasterState, framework: FrameworkRecord) -> tuple[Fraction, str]:
    """Return the largest part the framework holds of anything (unweighted), and of what."""
    best, name = Fraction(0), ""
    for resource, milli in framework.allocated.items():
        total = state.totals.get(resource, 0)
        if total > 0 and Fraction(milli, total) > best:
            best, name = Fraction(milli, total), resource
    return best, name


# --- tasks ------------------------------------------------------------------------------------


def tasks(state: MasterState, args: Row) -> tuple[list[Row], int]:
    """One row per task, oldest first. Args: `framework` (id or name), `states`, `name`, `ended`
    (whether ended tasks are wanted; default true), `newest` (newest first), `offset`, `limit`."""
    wanted_states = {str(name).upper() for name in args.get("states") or ()}
    unknown = wanted_states - set(TaskState.__members__)
    if unknown:
        names = ", ".join(TaskState.__members__)
        raise LookupError(f"no task state {', '.join(sorted(unknown))}: expected one of {names}")
    ids = _framework_ids(state, args.get("framework"))
    name = args.get("name")
    ended = args.get("ended", True)
    found = [
        task
        for task in state.tasks.values()
        if (ids is None or task.framework_id in ids)
        and (not wanted_states or task.state.name in wanted_states)
        and (name is None or task.spec.name == name)
        and (ended or not task.state.terminal)
    ]
    page = _page(args)
    found.sort(key=lambda task: task.id, reverse=bool(args.get("newest")))
    return [task_row(state, task) for task in found[page]], len(found)


def _framework_ids(state: MasterState, wanted: Any) -> set[FrameworkId] | None:
    if not wanted:
        return None
    ids = {f.id for f in state.frameworks.values() if wanted in (f.id, f.info.name)}
    if not ids:
        raise LookupError(f"there is no framework {wanted!r}")
    return ids


def task_row(state: MasterState, task: TaskRecord) -> Row:
    """Return one task as plain values."""
    agent = state.agents.get(task.agent_id) if task.agent_id else None
    framework = state.frameworks.get(task.framework_id)
    return {
        "id": format_task_id(task.id),
        "number": task.id,
        "name": task.spec.name,
        "index": task.index,
        "framework": (framework.info.name if framework else "") or task.framework_id,
        "framework_id": task.framework_id,
        "state": task.state.name,
        "reason": task.reason,
        "message": task.message,
        "agent": (agent.info.name or agent.id) if agent else (task.agent_id or ""),
        "agent_id": task.agent_id or "",
        "attempt": task.attempt,
        "restarts": task.restarts,
        "executor": task.spec.implementations[task.implementation].executor if task.attempt else "",
        "resources": resources_row(task.resources) if task.attempt else str(task.spec.resources),
        "submitted_at": task.submitted_at,
        "changed_at": task.changed_at,
        "exit_code": task.exit_code,
        "signal": task.signal,
        "result": task.result,
        "usage": usage_row(task),
        "desired": "stop" if task.kill_reason or task.state.terminal else "run",
    }


def usage_row(task: TaskRecord) -> Row | None:
    """Return what the current attempt used when its agent last told, or None. `cpus` is how many
    processors it kept busy between the last two figures."""
    usage = task.usage
    if usage is None or usage.attempt != task.attempt:
        return None
    figures = usage.figures
    return {
        "cpus": None if usage.cpus is None or task.state.terminal else round(usage.cpus, 3),
        "cpu_s": None if figures.cpu_ms is None else figures.cpu_ms / 1000,
        "mem_mib": None if figures.mem_kib is None else round(figures.mem_kib / 1024, 2),
        "mem_peak_mib": None if figures.mem_peak_kib is None else round(figures.mem_peak_kib / 1024, 2),
        "net_rx_bytes": figures.net_rx_bytes,
        "net_tx_bytes": figures.net_tx_bytes,
        "at": usage.at,
    }


def find_task(state: MasterState, wanted: Any) -> TaskRecord:
    """Return the task with that id (`t17`, `17`) or unique name.

    Raises:
        LookupError: if there is none, or several have the name.
        ValueError: if none is wanted.
    """
    if wanted is None:
        raise ValueError("expected `task`: an id, such as t17, or a name")
    text = str(wanted)
    try:
        task = state.tasks.get(parse_task_id(text))
        if task is not None:
            return task
    except SpecError:
        pass
    named = [task for task in state.tasks.values() if task.spec.name == text]
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(format_task_id(TaskId(task.id)) for task in named[:10])
        raise LookupError(f"{len(named)} tasks are named {text!r}: use an id ({ids})")
    raise LookupError(f"there is no task {text!r}; ended tasks are forgotten after a while")


def story(state: MasterState, args: Row) -> tuple[list[Row], int]:
    """One row per line of a task's story, oldest first. Args: `task`."""
    task = find_task(state, args.get("task"))
    rows: list[Row] = []
    for entry in task.story:
        agent = state.agents.get(AgentId(entry.agent_id))
        rows.append(
            {
                "at": entry.at,
                "state": entry.state.name,
                "reason": entry.reason,
                "source": entry.source,
                "message": entry.message,
                "attempt": entry.attempt,
                "agent": (agent.info.name or agent.id) if agent else entry.agent_id,
            }
        )
    return rows, len(rows)


def explain(state: MasterState, args: Row) -> tuple[list[Row], int]:
    """One row: why a task is where it is, agent by agent, and what happens next. Args: `task`."""
    return [explain_task(state, find_task(state, args.get("task")))], 1


QUERIES: Final[dict[str, Callable[[MasterState, Row], tuple[list[Row], int]]]] = {
    "cluster": cluster,
    "agents": agents,
    "frameworks": frameworks,
    "tasks": tasks,
    "explain": explain,
    "story": story,
}
