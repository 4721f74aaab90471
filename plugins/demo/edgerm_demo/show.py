"""The demonstration itself, step by step."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import anyio

from edgerm_core.client import Operator, connect_framework, connect_operator
from edgerm_core.config import DEFAULT_URL
from edgerm_core.errors import EdgermError
from edgerm_demo.cluster import AGENTS, START_TIMEOUT_S, Cluster, running, wait_until
from edgerm_demo.display import Display, bar, shares, where
from edgerm_demo.rival import Rival
from edgerm_demo.study import Study
from edgerm_demo.weather import Finding, celsius, independent_finding, read_parts

VICTIMS: Final = ("node-b", "node-a")
"""One of the small nodes dies: the first that is at work for the study, else the first."""

KILL_AT: Final = 0.4
"""Part of the work that is done when the victim dies."""

DEADLINE_S: Final = 240.0
"""The whole demonstration; something is wrong if it takes longer."""

REFRESH_S: Final = 0.25


async def run_demo(keep: bool, plain: bool) -> None:
    """Run the demonstration.

    Raises:
        EdgermError: if anything does not go as it should, with what did not.
    """
    directory = Path(tempfile.mkdtemp(prefix="edgerm-demo-"))
    display = Display(plain)
    try:
        with running(directory) as cluster, ProcessPoolExecutor(1) as elsewhere:
            try:
                with anyio.move_on_after(DEADLINE_S) as scope:
                    await _show(cluster, display, elsewhere)
            finally:
                # Whoever has to be told of an error need not wait for the rest of the calculation.
                elsewhere.shutdown(wait=False, cancel_futures=True)
            if scope.cancelled_caught:
                raise EdgermError(f"not done after {DEADLINE_S:g} s; the logs were in {directory}")
            _next_steps(cluster, display, keep)
            if keep:
                await _wait_for_interrupt()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _show(cluster: Cluster, display: Display, elsewhere: ProcessPoolExecutor) -> None:
    parts = read_parts()
    # The independent calculation runs meanwhile, in a process that knows nothing of the cluster.
    expected = [elsewhere.submit(independent_finding, part) for part in parts]
    display.say("edgerm demo: a master and three agents as processes on this machine, over WebSockets")
    hours = sum(len(part.samples) for part in parts)
    display.say(f"data: {hours} hourly temperatures, Seattle 2010, in {len(parts)} weeks")
    display.say("      (seattle-temps.csv of the PyPI package vega_datasets; NOAA, public domain)")
    display.say()
    cluster.start_master()
    for name in AGENTS:
        cluster.start_agent(name)
    async with connect_operator(cluster.url, connect_timeout_s=START_TIMEOUT_S) as operator:
        await wait_until("starting the agents", cluster, functools.partial(_all_ready, operator))
        display.step(f"master listens on {cluster.url}; these agents dialled in and offer:")
        for row in (await operator.query("agents")).rows:
            executors = "+".join(e["name"] for e in row["executors"])
            totals = row["totals"]
            display.say(
                f"          {row['name']:8} {totals['cpus']:g} cpus, {totals['mem']:g} MiB, {executors}"
            )
        display.step("framework weather: one WASM task per week; framework rival: primes, without end")
        display.say("          below: dominant shares, then what runs where as weather+rival")
        async with (
            connect_framework(cluster.url, name="weather") as framework,
            connect_framework(cluster.url, name="rival") as rival_framework,
            anyio.create_task_group() as group,
        ):
            study, rival = Study(framework, parts), Rival(rival_framework)
            group.start_soon(rival.run)
            await _map(cluster, display, operator, study, rival)
            await _recovered(cluster, display, operator)
            printed, year = await study.reduce()
            display.step("reduced by a process task on the gateway, which printed:")
            for line in printed.splitlines():
                display.say(f"          {line}")
            group.cancel_scope.cancel()
            await rival_framework.teardown()
        _check(display, study, [await anyio.to_thread.run_sync(e.result) for e in expected], year)


async def _all_ready(operator: Operator) -> bool:
    rows = (await operator.query("agents")).rows
    return {row["name"] for row in rows if row["state"] == "READY"} == set(AGENTS)


async def _map(cluster: Cluster, display: Display, operator: Operator, study: Study, rival: Rival) -> None:
    """Run the map, show what happens, and kill an agent on the way."""
    killed = False
    async with anyio.create_task_group() as group:
        group.start_soon(study.map)
        while len(study.findings) < len(study.parts):
            done = len(study.findings)
            if not killed and done >= KILL_AT * len(study.parts):
                killed = True
                victim = await _victim(operator)
                pid = cluster.kill(victim)
                display.step(f"kill -9 of {victim} (process {pid}), in the middle of its tasks")
            cluster.check()
            frameworks = (await operator.query("frameworks")).rows
            agents = (await operator.query("agents")).rows
            live = (await operator.query("tasks", ended=False, states=["STARTING", "RUNNING"])).rows
            text = f"{bar(done, len(study.parts))} {done:2}/{len(study.parts)}   "
            named = [row for row in frameworks if row["name"] in ("rival", "weather")]
            display.progress(f"{text}{shares(named[::-1])}   on {where(agents, live)}")
            await anyio.sleep(REFRESH_S)
    display.step(
        f"all {len(study.parts)} weeks analysed; meanwhile {rival.done} tasks of the rival finished"
    )


async def _victim(operator: Operator) -> str:
    running = (await operator.query("tasks", framework="weather", states=["RUNNING"])).rows
    at_work = {row["agent"] for row in running}
    return next((name for name in VICTIMS if name in at_work), VICTIMS[0])


async def _recovered(cluster: Cluster, display: Display, operator: Operator) -> None:
    """Show what became of the tasks that ran on the killed agent."""
    moved: list[dict[str, Any]] = []

    async def found() -> bool:
        moved[:] = [row for row in (await operator.query("tasks")).rows if row["attempt"] > 1]
        return bool(moved)

    await wait_until("placing the killed agent's tasks again", cluster, found)
    display.step(f"{len(moved)} tasks lost their agent and were placed again; the story of one:")
    rows = (await operator.query("story", task=moved[0]["id"])).rows
    began = rows[0]["at"]
    for row in rows:
        agent = f" on {row['agent']}" if row["agent"] else ""
        text = f"{row['state']:11} {row['reason']}{agent}"
        message = f": {row['message']}" if row["message"] else ""
        display.say(f"          +{row['at'] - began:5.2f} s  attempt {row['attempt']}  {text}{message}")


def _check(display: Display, study: Study, expected: list[Finding], year: dict[str, int]) -> None:
    """Compare every figure with the independent calculation.

    Raises:
        EdgermError: naming the first figure that differs.
    """
    for part, finding in zip(study.parts, expected, strict=True):
        if study.findings[part.index] != finding:
            raise EdgermError(f"week {part.index + 1}: {study.findings[part.index]} is not {finding}")
    wanted = {
        "hours": sum(f.count for f in expected),
        "total": sum(f.total for f in expected),
        "low": min(f.low for f in expected),
        "high": max(f.high for f in expected),
        "heating": sum(f.heating for f in expected),
        "total_p05": sum(f.total_p05 for f in expected),
        "total_p95": sum(f.total_p95 for f in expected),
    }
    if year != wanted:
        raise EdgermError(f"the year's figures {year} are not {wanted}")
    mean = celsius(wanted["total"] / wanted["hours"])
    figures = len(expected) * len(Finding.__struct_fields__) + len(wanted)
    display.step(f"the year's mean is {mean:.2f} °C; all {figures} figures agree with an independent")
    display.say("          calculation in Python")


def _next_steps(cluster: Cluster, display: Display, keep: bool) -> None:
    display.say()
    if not keep:
        display.say("Where to go next:")
        display.say("  edgerm demo --keep       leaves the cluster running, to look around and submit to")
        display.say("  docs/tutorial.md         the same by hand: a master, an agent, your first task")
        display.say("  examples/                frameworks to start from")
        return
    where_it_is = "" if cluster.url == DEFAULT_URL else f"export EDGERM_MASTER={cluster.url}\n  "
    display.say("The cluster runs on. In another terminal:")
    display.say(f"  {where_it_is}edgerm agents; edgerm ps --all; edgerm run --process -- uname -a")
    display.say(f"Ctrl-C here (or kill {os.getpid()}) ends it.")


async def _wait_for_interrupt() -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            return
