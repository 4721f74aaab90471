"""When a calm cluster counts as settled, and what must hold then.

Settled: everybody is there, nothing is on its way, what runs is what the books say, and every task has
ended or waits in a state that says why. Then the books are compared with what their records would make of
them: a restart must change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgerm_core.agent.run import Phase
from edgerm_core.agents import AgentState
from edgerm_core.feasibility import check as feasible
from edgerm_core.feasibility import fits_totals
from edgerm_core.frameworks import FrameworkState
from edgerm_core.master import invariants
from edgerm_core.master.machine import Machine
from edgerm_core.master.records import AgentRecord, TaskRecord
from edgerm_core.master.state import MasterState
from edgerm_core.resources import Resources
from edgerm_core.tasks import TaskState
from edgerm_core.testing.simulator.agent_node import AgentNode
from edgerm_core.testing.simulator.executors import Behaviour
from edgerm_core.testing.simulator.framework_node import FrameworkNode
from edgerm_core.testing.simulator.gateway_node import GatewayNode
from edgerm_core.testing.simulator.world import Failure

if TYPE_CHECKING:
    from edgerm_core.testing.simulator.cluster import Cluster


def unsettled(cluster: Cluster) -> list[str]:
    """Return what is not settled yet."""
    machine = cluster.master.machine
    if machine is None or not cluster.master.listening:
        return ["the master is not there"]
    state = machine.state
    reasons: list[str] = []
    if cluster.master.busy or state.dirty:
        reasons.append("the master's disk is behind")
    for node in cluster.agents.values():
        reasons += _agent(state, node)
    for gateway in cluster.checks.gateways.values():
        reasons += _gateway(cluster, gateway)
    for task in state.tasks.values():
        reasons += _task(cluster, state, task)
    for framework in cluster.frameworks.values():
        reasons += _framework(state, framework)
    if cluster.operator.waiting:
        reasons.append(f"op waits for {list(cluster.operator.waiting.values())}")
    if state.offers:
        reasons.append(f"{len(state.offers)} offers are out")
    reasons += [
        f"framework {f.id} is {f.state.name}" for f in state.frameworks.values() if _leaving(f.state)
    ]
    return reasons


def _leaving(state: FrameworkState) -> bool:
    return state is FrameworkState.REMOVED


def _agent(state: MasterState, node: AgentNode) -> Iterator[str]:
    record = state.agents.get(node.plan.name)  # type: ignore[call-overload]
    agent = node.agent
    if agent is None or not agent.session.registered:
        yield f"{node.name} is not registered"
        return
    if record is None or record.session_id is None or record.state is not AgentState.READY:
        yield f"{node.name} is not READY on the master"
        return
    if record.ghosts:
        yield f"{node.name} has ghosts {sorted(record.ghosts)}"
    if record.info != agent.info:
        yield f"{node.name} has changed, and the master does not know"
    held = {(int(task_id), holding.attempt) for task_id, holding in record.holdings.items()}
    known = {(int(task_id), attempt) for task_id, attempt in agent.runs.known}
    if held != known:
        yield f"{node.name} knows {sorted(known)}, the master {sorted(held)}"
    live = {run.key for run in node.host.live()}
    wanted = {
        (int(run.launch.task_id), run.launch.attempt, run.restarts)
        for run in agent.runs.active.values()
        if run.phase in (Phase.STARTING, Phase.RUNNING)
    }
    if live != wanted:
        yield f"on {node.name} run {sorted(live)}, it knows of {sorted(wanted)}"
    for run in agent.runs.known.values():
        task = state.tasks.get(run.launch.task_id)
        if not run.updates.settled:
            yield f"{node.name}: {run} has something to report"
        wait_s = run.restart_at - agent.turn.now
        if run.phase is Phase.DELAYED and wait_s > run.launch.restart.max_delay_s:
            yield f"{node.name}: {run} starts again in {wait_s:.0f} s only"
        if task is not None and (run.state, run.restarts) != (task.state, task.restarts):
            yield f"{node.name}: {run} is {run.state.name}, on the master t{task.id} is {task.state.name}"


def _gateway(cluster: Cluster, node: GatewayNode) -> Iterator[str]:
    gateway = node.gateway
    if gateway is None or not gateway.uplink.is_open:
        yield f"{node.name} takes no devices"
        return
    if list(gateway.custody.agents()):
        yield f"{node.name} still answers for updates of {gateway.custody.agents()}"
    for standin in gateway.standins.values():
        device = cluster.agents[standin.id].agent
        if standin.session is None or device is None:
            continue  # It is elsewhere, and its lease will run out.
        if standin.passing:
            yield f"{node.name} passes on {list(standin.passing)} of {standin.id}"
        told = standin.registration()
        if told.info != device.info:
            yield f"{node.name} knows {standin.id} as it was"
        tasks = {(int(r.task_id), r.attempt, r.state, r.restarts) for r in told.tasks}
        known = {
            (int(run.launch.task_id), run.launch.attempt, run.state, run.restarts)
            for run in device.runs.known.values()
        }
        if tasks != known:
            yield f"{node.name} knows {sorted(tasks)} of {standin.id}, which has {sorted(known)}"


def _task(cluster: Cluster, state: MasterState, task: TaskRecord) -> Iterator[str]:
    what = f"t{task.id} ({task.spec.name}) is {task.state.name} ({task.reason})"
    if task.state.terminal:
        return
    if int(task.id) in cluster.checks.killed:
        yield f"{what} although its kill was promised"
    if task.state is TaskState.PENDING:
        if not task.reason:
            yield f"{what} without a reason"
        if task.spec.blobs() - state.blobs.keys():
            return
        if task.id not in state.frameworks[task.framework_id].pending:
            yield f"{what} and does not wait for a placement"
        for agent in state.schedulable.values():
            if isinstance(feasible(task.spec, agent), Resources) and not _held_back(state, agent):
                yield f"{what} although it fits on {agent.id}"
    elif not _goes_on(task):
        yield f"{what} and should end by itself"
    elif task.state not in (TaskState.RUNNING, TaskState.STARTING):
        yield what


def _held_back(state: MasterState, agent: AgentRecord) -> bool:
    """Return whether a policy may hold the agent's room back: a task waits that does not fit in yet."""
    waiting = [task for framework in state.frameworks.values() for task in framework.pending.values()]
    return any(
        fits_totals(task.spec, agent) and not isinstance(feasible(task.spec, agent), Resources)
        for task in waiting
    )


def _goes_on(task: TaskRecord) -> bool:
    """Return whether the task has no end of its own."""
    behaviour = Behaviour.of(task.spec.implementations[task.implementation].options)
    if task.spec.restart.on == "always":
        return True
    fails = behaviour.end != "well" or behaviour.start != "well" or behaviour.random_exit_s
    if task.spec.restart.on == "failure" and fails:
        return True  # Slowly enough, it is restarted for ever.
    return behaviour.run_s is None and not behaviour.random_exit_s and task.spec.time_limit_s is None


def _framework(state: MasterState, node: FrameworkNode) -> Iterator[str]:
    if node.finished:
        return
    record = state.frameworks.get(node.plan.name)  # type: ignore[call-overload]
    if node.leaving:
        if record is not None:
            yield f"{node.name} wants to leave"
        return
    if not node.connected or record is None or record.state is not FrameworkState.CONNECTED:
        yield f"{node.name} is not connected"
        return
    if node.owed:
        yield f"{node.name} waits for an answer"
    for submission in node.submissions.values():
        if submission.ids is None and not submission.failed:
            yield f"{node.name}: {submission.key} was not answered"
    for task in (*record.live.values(), *record.ended.values()):
        told = node.told.get(int(task.id))
        if told is None:
            yield f"{node.name} was told nothing of t{task.id}"
        elif (told.version, told.state) != (task.version, task.state):
            yield f"{node.name} believes t{task.id} to be {told.state.name}, it is {task.state.name}"
        if int(task.id) not in node.task_ids():
            yield f"{node.name} does not know t{task.id}"


def check_settled(cluster: Cluster) -> None:
    """Check what must hold once all is settled.

    Raises:
        Failure: naming what does not.
    """
    machine = cluster.master.machine
    assert machine is not None
    for (framework, key), ids in cluster.checks.promised.items():
        if framework in machine.state.frameworks and not cluster.frameworks[framework].finished:
            lost = [task_id for task_id in ids if task_id not in machine.state.tasks]
            if lost:
                raise Failure(f"{framework}: {key} made {ids}, and {lost} are not on the books")
    cluster.checks.disk_agrees(cluster.master)
    for node in cluster.agents.values():
        cluster.checks.journal_agrees(node)
    for gateway in cluster.checks.gateways.values():
        cluster.checks.custody_agrees(gateway)
    check_replay(cluster, machine)


def check_replay(cluster: Cluster, machine: Machine) -> None:
    """Compare the books with what a restarted master would make of its records.

    Raises:
        Failure: naming what would be different.
    """
    now = machine.state.now
    again = Machine(cluster.master.settings, scheduler=machine.state.scheduler, master_id="again", now=now)
    for blob, size in machine.state.blobs.items():
        again.state.blobs[blob] = size
    again.restore(cluster.master.disk.load(), now)
    try:
        invariants.check(again.state)
    except AssertionError as error:
        raise Failure(f"m: after a restart: {error}") from error
    for task_id, task in machine.state.tasks.items():
        other = again.state.tasks.get(task_id)
        then = _facts(other) if other is not None else {}
        now_facts = _facts(task)
        different = {name: value for name, value in now_facts.items() if value != then.get(name)}
        if different:
            raise Failure(f"m: t{task_id} would be different after a restart: {different}")
    if again.state.tasks.keys() != machine.state.tasks.keys():
        raise Failure("m: other tasks after a restart")
    if again.state.next_task_id < machine.state.next_task_id:
        raise Failure("m: numbers of tasks would be given again after a restart")
    for agent_id, agent in machine.state.agents.items():
        if _room(agent) != _room(again.state.agents[agent_id]):
            raise Failure(f"m: {agent_id} would have other resources free after a restart")
    for framework_id, framework in machine.state.frameworks.items():
        before = framework.keys, set(framework.pending), set(framework.live), set(framework.ended)
        same = again.state.frameworks[framework_id]
        if before != (same.keys, set(same.pending), set(same.live), set(same.ended)):
            raise Failure(f"m: {framework_id} would be different after a restart")


def _facts(task: TaskRecord) -> dict[str, object]:
    unwritten = ("said_seq", "sent_at")
    return {name: getattr(task, name) for name in TaskRecord.__slots__ if name not in unwritten}


def _room(agent: AgentRecord) -> tuple[object, ...]:
    held = {task_id: holding.resources for task_id, holding in agent.holdings.items()}
    return agent.totals, agent.free, held
