"""Sessions: who is on the other end, and which messages that role may send."""

from __future__ import annotations

import logging
from typing import Any

from edgerm_core.ids import SessionId
from edgerm_core.limits import GREETING_TIMEOUT_S
from edgerm_core.master import agents, frameworks, logs
from edgerm_core.master.events import SessionOpened
from edgerm_core.master.records import Session
from edgerm_core.master.state import MasterState
from edgerm_core.messages import Greet, Greeted, RefusalCode, negotiate


def opened(state: MasterState, event: SessionOpened) -> None:
    """Somebody connected and has a while to say who it is."""
    session = Session(event.session_id, event.peer, event.identity, event.push)
    session.max_message_bytes = event.max_message_bytes
    session.via = event.via
    session.age_s = event.age_s
    state.sessions[session.id] = session
    if event.custody_of is not None:
        session.role = "custody"
        session.agent_id = event.custody_of
    else:
        state.at(state.now + GREETING_TIMEOUT_S, on_greeting_timeout, session.id)


def on_greeting_timeout(state: MasterState, session_id: Any) -> None:
    """Close a session that has not said who it is."""
    session = state.sessions.get(session_id)
    if session is not None and not session.role:
        text = f"no greeting within {GREETING_TIMEOUT_S:g} s"
        state.close_session(session_id, RefusalCode.UNEXPECTED, text)


def closed(state: MasterState, session_id: SessionId, reason: str) -> None:
    """A connection is gone; what it stood for goes on or waits."""
    session = state.sessions.pop(session_id, None)
    if session is None:
        return
    logs.asker_left(state, session_id)
    if session.agent_id is not None:
        agent = state.agents.get(session.agent_id)
        if agent is not None and agent.session_id == session_id:
            state.report(logging.INFO, f"agent {agent.info.name or agent.id} lost its connection: {reason}")
            agents.session_ended(state, agent)
    if session.framework_id is not None:
        framework = state.frameworks.get(session.framework_id)
        if framework is not None and framework.session_id == session_id:
            frameworks.session_ended(state, framework)


def greet(state: MasterState, session: Session, request: Greet) -> None:
    """An operator's tool says who it is."""
    version = negotiate(request.versions)
    if version is None:
        low, high = request.versions
        text = f"no common protocol version: the tool speaks {low} to {high}; upgrade the older side"
        state.close_session(session.id, RefusalCode.VERSION, text)
        return
    session.role = "operator"
    state.send(session.id, Greeted(version, state.master_id))
