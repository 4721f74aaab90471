"""Why a task is where it is, in sentences a person can act on; agent by agent while it waits."""

from __future__ import annotations

from typing import Any

from edgerm_core.feasibility import check, fits_totals
from edgerm_core.ids import format_task_id
from edgerm_core.master.agents import next_step
from edgerm_core.master.records import AgentRecord, TaskRecord
from edgerm_core.master.state import MasterState
from edgerm_core.master.timelimit import TookTooLong
from edgerm_core.master.window import Window
from edgerm_core.resources import Resources
from edgerm_core.tasks import Reason, TaskState

MAX_EXPLAINED_AGENTS = 200
"""Agents listed one by one; beyond that the summary has to do."""


def explain_task(state: MasterState, task: TaskRecord) -> dict[str, Any]:
    """Return {task, state, summary, policy, agents: [{agent, verdict, obstacles}], next}.

    `verdict` is `fits`, `full` (would fit if others ended), `never` (not as the agent is now) or
    `away`.
    """
    row: dict[str, Any] = {
        "task": format_task_id(task.id),
        "name": task.spec.name,
        "state": task.state.name,
        "summary": "",
        "policy": "",
        "agents": [],
        "next": "",
    }
    if task.state is TaskState.PENDING:
        _explain_pending(state, task, row)
    else:
        row["summary"], row["next"] = _explain_placed(state, task)
    return row


def _explain_pending(state: MasterState, task: TaskRecord, row: dict[str, Any]) -> None:
    if task.reason == Reason.WAITING_BLOB:
        row["summary"] = f"waits for the framework to upload what it needs ({task.message})"
        row["next"] = "placed once everything has been uploaded"
        return
    if task.not_before > state.now:
        row["summary"] = f"waits {task.not_before - state.now:.1f} s before its next attempt"
        row["next"] = f"its last attempt: {task.message}" if task.message else ""
        return
    verdicts = [_verdict(state, task, agent) for agent in state.agents.values()]
    rank = {"fits": 0, "full": 1, "away": 2, "never": 3}
    verdicts.sort(key=lambda v: (rank[v["verdict"]], v["agent"]))
    row["agents"] = verdicts[:MAX_EXPLAINED_AGENTS]
    count = {name: sum(1 for v in verdicts if v["verdict"] == name) for name in rank}
    row["policy"] = _policy(state, task)
    if not verdicts:
        row["summary"] = "no agent has registered yet"
        row["next"] = "placed when an agent joins that fits"
    elif count["fits"]:
        row["summary"] = f"fits {_agents(count['fits'])} now and waits for its turn"
        row["next"] = state.scheduler_problem or "placed as soon as fair sharing allows"
    elif count["full"]:
        best = next(v for v in verdicts if v["verdict"] == "full")
        row["summary"] = (
            f"no agent has enough free: {_agents(count['full'])} could run it when others end "
            f"(closest: {best['agent']}: {'; '.join(best['obstacles'])})"
        )
        row["next"] = "placed when enough is given back there"
    elif count["away"]:
        row["summary"] = f"only agents that are away could run it ({_agents(count['away'])})"
        row["next"] = "placed when one of them comes back"
    else:
        reasons = _most_common([obstacle for v in verdicts for obstacle in v["obstacles"]])
        row["summary"] = (
            f"can never run on any agent registered now ({len(verdicts)}), even if idle: {reasons}"
        )
        row["next"] = "waits for an agent that fits; or kill it and submit it with other demands"


def _verdict(state: MasterState, task: TaskRecord, agent: AgentRecord) -> dict[str, Any]:
    name = agent.info.name or agent.id
    result = check(task.spec, agent)
    obstacles = [] if isinstance(result, Resources) else [o.sentence for o in result]
    if not fits_totals(task.spec, agent):
        return {"agent": name, "verdict": "never", "obstacles": _against_totals(task, agent)}
    if not agent.schedulable:
        what = agent.state.name.lower()
        if agent.state.name == "READY":
            what = "not connected at the moment"
        return {"agent": name, "verdict": "away", "obstacles": [f"the agent is {what}"]}
    return {"agent": name, "verdict": "full" if obstacles else "fits", "obstacles": obstacles}


def _against_totals(task: TaskRecord, agent: AgentRecord) -> list[str]:
    """Return what is missing even when the agent is idle."""
    idle = AgentRecord(agent.info)
    idle.max_message_bytes = agent.max_message_bytes
    idle.free = idle.totals
    result = check(task.spec, idle)
    return [] if isinstance(result, Resources) else [o.sentence for o in result]


def _policy(state: MasterState, task: TaskRecord) -> str:
    if not state.scheduler_explains:
        return "the scheduler did not come back from an earlier explanation: it is not asked again"
    window = Window(state, complete=False)
    try:
        return state.within(lambda: state.scheduler.explain(task, window))
    except TookTooLong as error:
        state.scheduler_explains = False
        return f"the scheduler cannot explain it: {error}"
    except Exception as error:
        return f"the scheduler cannot explain it: {type(error).__name__}: {error}"


def _explain_placed(state: MasterState, task: TaskRecord) -> tuple[str, str]:
    agent = state.agents.get(task.agent_id) if task.agent_id else None
    name = (agent.info.name or agent.id) if agent else (task.agent_id or "an agent")
    if task.state is TaskState.STAGING:
        return f"placed on {name}, which has not confirmed it yet", "the order is repeated until it does"
    if task.state is TaskState.STARTING:
        what = f" ({task.reason}{': ' + task.message if task.message else ''})"
        return f"starting on {name}{what}", "runs when that is done"
    if task.state is TaskState.RUNNING:
        return f"runs on {name}", ""
    if task.state is TaskState.KILLING:
        return f"is being stopped on {name} ({task.reason})", "ends within its grace period"
    if task.state is TaskState.UNREACHABLE:
        silent_s = state.now - agent.last_heard if agent else 0.0
        waited_s = state.now - agent.unreachable_since if agent else 0.0
        waits_for_ever = not task.kill_reason and not task.spec.disconnect.replace
        left_s = 0.0 if waits_for_ever else max(0.0, task.spec.disconnect.lost_after_s - waited_s)
        where = f"its agent {name} has been silent for {silent_s:.0f} s; whether it runs is not known"
        return where, f"{next_step(task)} ({left_s:.0f} s from now)" if left_s else next_step(task)
    ended = f"ended: {task.state.name} ({task.reason})"
    return f"{ended}: {task.message}" if task.message else ended, ""


def _agents(count: int) -> str:
    return "1 agent" if count == 1 else f"{count} agents"


def _most_common(sentences: list[str]) -> str:
    counts: dict[str, int] = {}
    for sentence in sentences:
        counts[sentence] = counts.get(sentence, 0) + 1
    common = sorted(counts, key=lambda s: (-counts[s], s))[:3]
    return "; ".join(f"{s} ({_agents(counts[s])})" for s in common)
