"""What the master orders: levels and not edges, so that an order that comes again changes nothing."""

from micropython import const

from edgerm import part
from edgerm.runs import END, KILLED, WAIT, Run

_STARTING = const(3)
_KILLING = const(5)
_ERROR = const(13)
_DROPPED = const(14)

_UNACKNOWLEDGED = const(16)
"""Attempts that may be known; more orders are not answered, and come again."""


def launch(agent, message, raw):
    """Take a Launch.

    Parameters:
        raw: the same as bytes.
    """
    runs = agent.runs
    task_id, attempt = message[1], message[2]
    newest = runs.newest(task_id)
    if attempt < newest:
        return
    if attempt == newest:
        _launched_again(runs, task_id, attempt)
        return
    if len(runs.known) >= _UNACKNOWLEDGED:
        return
    run = Run(raw, message)
    problem = _refusal(agent, run.launch())
    runs.known.append(run)
    agent.journal.write(raw, agent)
    for each in runs.known[:-1]:
        if each.task_id == task_id and each.phase != END:
            runs.stop(each, (KILLED, "replaced", "", True), run.launch()[13])
    if problem:
        runs.finish(run, *problem)
    else:
        run.phase = WAIT
        runs.begin(task_id)


def _launched_again(runs, task_id, attempt):
    for run in runs.known:
        if run.task_id == task_id and run.attempt == attempt:
            if run.phase != END and not run.last_seq and run.waiting is None:
                runs.report(run, _STARTING, "starting")
            return
    for last in runs.last_words:
        if last[1] == task_id and last[2] == attempt:
            runs.echo(last)


def kill(agent, message):
    """Take a Kill."""
    runs = agent.runs
    task_id, attempt = message[1], message[2]
    grace_s = message[3] if len(message) > 3 else 5
    reason = message[4] if len(message) > 4 and message[4] else "killed-by-request"
    here = False
    for run in [run for run in runs.known if run.task_id == task_id]:
        here = here or run.attempt == attempt
        if run.attempt <= attempt and run.phase != END:
            first = run.ending is None
            runs.stop(run, (KILLED, reason, "", True), grace_s)
            if first and run.phase != END:
                runs.report(run, _KILLING, reason)
    if here:
        return
    for last in runs.last_words:
        if last[1] == task_id and last[2] == attempt:
            runs.echo(last)
            return
    update = [6, task_id, attempt, 1, KILLED, reason]
    if attempt > runs.newest(task_id):
        # A Launch of this attempt may still be on its way.
        runs.remember(update)
    runs.echo(update)


def disown(agent):
    """Stop and forget everything: the master's books know nothing of it."""
    runs = agent.runs
    runs.last_words.clear()
    for run in runs.known[:]:
        if run.phase == END:
            runs.forget(run)
        else:
            run.ending = None
            runs.stop(run, (KILLED, "agent-removed", "", False), run.launch()[13])


def _refusal(agent, launch):
    """Return why a Launch cannot be carried out, as state, reason and sentence, or None."""
    name = launch[5].get("executor")
    resources = launch[6]
    occupied = sum([run.phase != END for run in agent.runs.known])
    if name not in part("executors").table():
        return _DROPPED, "executor-unavailable", "board %s has no executor %s" % (agent.id, name)
    if launch[8] or launch[9]:
        return _ERROR, "spec-invalid", "tasks of a board have no files and no volumes"
    if occupied >= agent.max_tasks:
        return (
            _DROPPED,
            "resources-unavailable",
            "board %s runs %d tasks already, its limit" % (agent.id, occupied),
        )
    for wanted in resources[0] if resources else ():
        if resources[0][wanted] > agent.scalars.get(wanted, 0):
            return _DROPPED, "resources-unavailable", "board %s has not that much %s" % (agent.id, wanted)
    for device in resources[3] if len(resources) > 3 else ():
        if device not in agent.devices.drivers:
            return _DROPPED, "resources-unavailable", "board %s has no device %s" % (agent.id, device)
    return None
