"""What must hold once all is calm: the books, what frameworks were told, and what really ran agree.

Each check yields sentences about what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from edgerm_core.limits import MAX_STORY_ENTRIES
from edgerm_core.tasks import TRANSITIONS, Reason, TaskState
from tests.e2e.chaos.evidence import Line
from tests.e2e.chaos.workload import EXIT_UNKNOWN, Job

Row = dict[str, Any]

TOLD: Final = (
    "id",
    "version",
    "state",
    "reason",
    "attempt",
    "restarts",
    "exit_code",
    "signal",
    "result",
)
RESULT_IS_ITS_NAME: Final = ("short", "long")


def check_agents(agents: Sequence[Row], names: Sequence[str]) -> Iterator[str]:
    """Everybody is there, and nothing is held by anybody."""
    if [row["name"] for row in agents] != sorted(names):
        yield f"the agents are {[row['name'] for row in agents]}"
    for row in agents:
        state = (row["state"], row["connected"], row["drain"])
        if state != ("READY", True, False):
            yield f"{row['name']} is {state}"
        if row["free"] != row["totals"]:
            yield f"{row['name']}: free is {row['free']} of {row['totals']}"
        for what in ("tasks", "ghosts", "offers"):
            if row[what]:
                yield f"{row['name']} has {row[what]} {what}"


def check_story(task: Row) -> Iterator[str]:
    """Each state follows the one before, and attempts grow."""
    story = task["story"]
    where = f"{task['id']} ({task['name']})"
    complete = len(story) < MAX_STORY_ENTRIES
    if complete and (story[0]["state"], story[0]["reason"]) != ("PENDING", Reason.SUBMITTED):
        yield f"{where}: its story begins with {story[0]}"
    if story[-1]["state"] != task["state"]:
        yield f"{where} is {task['state']}, its story ends with {story[-1]}"
    for before, after in pairwise(story):
        states = TaskState[before["state"]], TaskState[after["state"]]
        if complete and states[0] is not states[1] and states[1] not in TRANSITIONS[states[0]]:
            yield f"{where}: {states[0].name} was followed by {states[1].name}"
        if after["attempt"] < before["attempt"]:
            yield f"{where}: attempt {before['attempt']} was followed by {after['attempt']}"
        if states[0].terminal:
            yield f"{where}: something followed its end: {after}"


def check_diary(diary: Sequence[Row]) -> Iterator[str]:
    """What one framework was told agrees with what it was told before."""
    ids: dict[str, list[int]] = {}
    last: dict[int, Row] = {}
    for line in diary:
        if line["what"] == "accepted" and ids.setdefault(line["key"], line["ids"]) != line["ids"]:
            yield f"{line['key']} made {ids[line['key']]}, and when it was submitted again {line['ids']}"
        if line["what"] == "told":
            told = {name: line[name] for name in TOLD}
            before = last.get(line["id"])
            if before is not None and TaskState[before["state"]].terminal and before != told:
                yield f"{line['key']} had ended as {before}, and now {told}"
            last[line["id"]] = told


def check_tasks(tasks: Sequence[Row], jobs: Mapping[str, Job], diary: Sequence[Row]) -> Iterator[str]:
    """The master has each accepted job's tasks once, ended as they should, as the framework was told.

    Parameters:
        tasks: of one framework, in the order of their ids.
        jobs: all that it submitted, by key.
    """
    accepted = {line["key"]: line["ids"] for line in diary if line["what"] == "accepted"}
    killed = {line["key"] for line in diary if line["what"] == "kill"}
    promised = {line["key"] for line in diary if line["what"] == "kill promised"}
    told = {line["id"]: {name: line[name] for name in TOLD} for line in diary if line["what"] == "told"}
    unsure = {line["key"] for line in diary if line["what"] == "unsure"}
    for key in {task["name"] for task in tasks} - accepted.keys() - unsure:
        yield f"{key} has tasks that the framework was not told of"
    for key in jobs.keys() - accepted.keys() - unsure - _given_up(diary):
        yield f"{key} was submitted and never accepted"
    for key, ids in accepted.items():
        numbers = [task["number"] for task in tasks if task["name"] == key]
        if numbers != ids:
            yield f"{key} is the tasks {ids} for its framework, {numbers} for the master"
    for task in tasks:
        job = jobs.get(task["name"])
        if job is None:
            continue
        yield from check_end(task, job, task["name"] in killed, task["name"] in promised)
        heard = told.get(task["number"])
        known = {name: task[name] for name in TOLD if name not in ("id", "version")}
        if heard is None and task["name"] not in unsure:
            yield f"{task['id']} ({task['name']}): its framework was never told how it ended"
        elif heard is not None and {name: heard[name] for name in known} != known:
            yield f"{task['id']} ({task['name']}): the framework was told {heard}, the master says {known}"


def _given_up(diary: Sequence[Row]) -> set[str]:
    return {line["key"] for line in diary if line["what"] == "given up"}


def check_end(task: Row, job: Job, killed: bool, promised: bool) -> Iterator[str]:
    """A task ended as its job says."""
    where = f"{task['id']} ({task['name']}, {job.kind})"
    how = f"{task['state']} ({task['reason']}) {task['message']}"
    state = TaskState[task["state"]]
    if not state.terminal:
        yield f"{where} has not ended: {how}"
    elif state is TaskState.KILLED:
        if not killed:
            yield f"{where} is {how}, and nobody wanted it killed"
    elif promised and state not in (TaskState.FINISHED, TaskState.FAILED):
        yield f"{where}: its kill was promised, and it is {how}"
    elif state is not job.expected.state and not (killed and state is TaskState.FAILED):
        yield f"{where} is {how}, expected {job.expected.state.name}"
    elif job.expected.reasons and task["reason"] not in job.expected.reasons:
        yield f"{where} is {how}, expected one of {job.expected.reasons}"
    else:
        code = job.expected.exit_code
        if code is not None and task["reason"] != EXIT_UNKNOWN and task["exit_code"] != code:
            yield f"{where} ended with {task['exit_code']}, expected {code}"
        result = job.expected.result.decode() if job.expected.result else None
        if job.kind in RESULT_IS_ITS_NAME:
            result = f"{job.key}.{task['index']}"
        if state is TaskState.FINISHED and task["result"] != result:
            yield f"{where} has the result {task['result']!r}, expected {result!r}"


def check_runs(task: Row, job: Job, lines: Sequence[Line]) -> Iterator[str]:
    """What the task wrote down itself agrees with what the master says of it."""
    where = f"{task['id']} ({task['name']}, {job.kind})"
    starts = [line for line in lines if line.what == "start"]
    for line in lines:
        if line.what == "twice":
            yield f"{where}: {line.run} began on {line.agent} while another run lived there"
        if line.what.startswith("beside-"):
            yield from _check_overlap(where, task, line, starts)
        if line.attempt > task["attempt"]:
            yield f"{where}: attempt {line.attempt} began, the master knows {task['attempt']}"
    for place in {(line.agent, line.boot) for line in starts}:
        runs = [line.run for line in starts if (line.agent, line.boot) == place]
        for before, after in pairwise(runs):
            if after <= before:
                yield f"{where}: on {place[0]} run {after} began after {before}"
    for attempt in {line.attempt for line in starts}:
        agents = {line.agent for line in starts if line.attempt == attempt}
        if len(agents) > 1:
            yield f"{where}: attempt {attempt} ran on {sorted(agents)}"
    yield from _check_last(where, task, lines)


def _check_last(where: str, task: Row, lines: Sequence[Line]) -> Iterator[str]:
    """The run whose end the master knows has ended like that."""
    last = [line for line in lines if line.run == (task["attempt"], task["restarts"])]
    ends = [line.what for line in last if line.what.startswith("end-")]
    # After a power cut the same run may begin again, since nobody remembers it.
    if task["state"] == "FINISHED" and ends[-1:] != ["end-0"]:
        yield f"{where} is FINISHED, its run wrote {ends}"
    exited = (task["state"], task["reason"]) == ("FAILED", Reason.EXIT_CODE)
    if exited and ends[-1:] != [f"end-{task['exit_code']}"]:
        yield f"{where} FAILED with {task['exit_code']}, its run wrote {ends}"
    if task["state"] == "FAILED" and task["reason"] == EXIT_UNKNOWN and not last:
        yield f"{where} FAILED ({EXIT_UNKNOWN}) and never began"
    if task["reason"] == Reason.TIME_LIMIT and ends:
        yield f"{where} reached its time limit, its run wrote {ends}"


def _check_overlap(where: str, task: Row, line: Line, starts: Sequence[Line]) -> Iterator[str]:
    """Two runs at once on two agents: only where the master had given the older one up."""
    other = line.what.removeprefix("beside-")
    there = [each for each in starts if each.agent == other and each.at <= line.at]
    if not there or len(task["story"]) >= MAX_STORY_ENTRIES:
        return
    older, agent = min((there[-1].attempt, other), (line.attempt, line.agent))
    given_up = [
        entry
        for entry in task["story"]
        if (entry["attempt"], entry["agent"]) == (older, agent)
        and entry["state"] == "UNREACHABLE"
        and entry["reason"] == Reason.AGENT_UNREACHABLE
    ]
    if not given_up:
        yield f"{where}: {line.run} on {line.agent} while {there[-1].run} lived on {other}"
