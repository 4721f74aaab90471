"""Orders: the difference between what an agent should run and what it says it runs.

An order goes out when it is decided, and again with an exchange that comes ORDER_RESEND_S later, for
as long as the agent has not confirmed it with a status update. Repeating is harmless: launches and
kills name an attempt.
"""

from __future__ import annotations

from edgerm_core.ids import TaskId
from edgerm_core.limits import ORDER_RESEND_S
from edgerm_core.master.records import AgentRecord, TaskRecord
from edgerm_core.master.state import MasterState
from edgerm_core.messages import Kill, Launch
from edgerm_core.tasks import Reason


def order_launch(state: MasterState, agent: AgentRecord, task: TaskRecord) -> None:
    """Tell the agent to run the task's current attempt."""
    spec = task.spec
    task.sent_at = state.now
    agent.unconfirmed[task.id] = None
    state.send(
        agent.session_id,
        Launch(
            task.id,
            task.attempt,
            task.framework_id,
            spec.name,
            spec.implementations[task.implementation],
            task.resources,
            spec.env,
            spec.files,
            spec.volumes,
            spec.restart,
            spec.disconnect.stop_after_s,
            spec.time_limit_s,
            spec.kill_grace_s,
            task.index,
        ),
    )


def order_kill(state: MasterState, agent: AgentRecord, task: TaskRecord) -> None:
    """Tell the agent to stop the task's current attempt and any older one."""
    task.sent_at = state.now
    agent.unconfirmed[task.id] = None
    grace_s = task.spec.kill_grace_s if task.kill_grace_s is None else task.kill_grace_s
    state.send(agent.session_id, Kill(task.id, task.attempt, grace_s, task.kill_reason))


def order_ghost_kill(state: MasterState, agent: AgentRecord, task_id: TaskId, attempt: int) -> None:
    """Tell the agent to stop an attempt that was given up."""
    task = state.tasks.get(task_id)
    grace_s = task.spec.kill_grace_s if task else 0.0
    state.send(agent.session_id, Kill(task_id, attempt, grace_s, Reason.REPLACED))


def resend_orders(state: MasterState, agent: AgentRecord, *, at_once: bool = False) -> None:
    """Repeat what the agent has not confirmed; `at_once` also what was sent just now."""
    for task_id in sorted(agent.unconfirmed):
        task = state.tasks.get(task_id)
        if task is None or task.agent_id != agent.id or task.id not in agent.holdings:
            agent.unconfirmed.pop(task_id, None)
        elif at_once or state.now - task.sent_at >= ORDER_RESEND_S:
            if task.kill_reason:
                order_kill(state, agent, task)
            elif not task.confirmed or not task.status_seq:
                # One that was confirmed and has no number is asked how it ended: `agents.missing`.
                order_launch(state, agent, task)
            else:
                agent.unconfirmed.pop(task_id, None)
