"""Log streams: an asker's request goes to the task's agent, the agent's answers go back.

The logs themselves stay on the agent; the master keeps only who asked whom, under request ids of
its own, because two askers may use the same number.
"""

from __future__ import annotations

import msgspec

from edgerm_core.ids import AgentId, SessionId, TaskId, format_task_id
from edgerm_core.limits import MAX_LOG_STREAMS
from edgerm_core.master.records import Session
from edgerm_core.master.state import MasterState
from edgerm_core.messages import LogData, LogGet, LogStream


def ask(state: MasterState, session: Session, request: LogGet) -> None:
    """Pass a request on to the task's agent, or say why there is nothing to read."""
    if request.cancel:
        cancel(state, session.id, request.request_id)
        return
    task = state.tasks.get(request.task_id)
    mine = task is not None and (session.role == "operator" or task.framework_id == session.framework_id)
    problem = ""
    name = format_task_id(request.task_id)
    streams = sum(1 for asker, _, _ in state.log_routes.values() if asker == session.id)
    if task is None or not mine:
        problem = f"there is no task {name} (any more)"
    elif task.agent_id is None:
        problem = f"task {name} has not been placed yet"
    elif streams >= MAX_LOG_STREAMS:
        problem = f"{streams} logs are being read already; close one first"
    else:
        agent = state.agents.get(task.agent_id)
        if agent is None or agent.session_id is None:
            what = agent.info.name or agent.id if agent else task.agent_id
            problem = f"agent {what}, which has the log of {name}, is not connected"
        else:
            route = state.next_log_route
            state.next_log_route += 1
            state.log_routes[route] = (session.id, request.request_id, agent.id)
            state.send(
                agent.session_id,
                msgspec.structs.replace(request, request_id=route, attempt=request.attempt or task.attempt),
            )
            return
    state.send(session.id, LogData(request.request_id, 0, end=True, problem=problem))


def answer(state: MasterState, agent_id: AgentId, data: LogData) -> None:
    """Pass an agent's answer back to the asker."""
    route = state.log_routes.get(data.request_id)
    if route is None or route[2] != agent_id:
        return
    asker, request_id, _ = route
    if data.end:
        del state.log_routes[data.request_id]
    state.send(asker, msgspec.structs.replace(data, request_id=request_id))


def cancel(state: MasterState, asker: SessionId, request_id: int | None = None) -> None:
    """Stop an asker's stream, or all of them; the agents are told."""
    for route, (session_id, asked, agent_id) in list(state.log_routes.items()):
        if session_id == asker and request_id in (None, asked):
            del state.log_routes[route]
            agent = state.agents.get(agent_id)
            if agent is not None and agent.session_id is not None:
                # Only the request id counts in a cancel.
                state.send(agent.session_id, LogGet(route, TaskId(0), LogStream.STDOUT, cancel=True))


def asker_left(state: MasterState, session_id: SessionId) -> None:
    """The asker is gone: nobody reads its streams any more."""
    cancel(state, session_id)


def agent_left(state: MasterState, agent_id: AgentId) -> None:
    """The agent is gone: its streams end here; the asker may ask again when it is back."""
    for route, (session_id, asked, source) in list(state.log_routes.items()):
        if source == agent_id:
            del state.log_routes[route]
            problem = "the agent that has the log lost its connection"
            state.send(session_id, LogData(asked, 0, end=True, problem=problem))
