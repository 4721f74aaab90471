"""The scheduler `drf` on clusters of growing size, beside the exact but slow reference.

    python benchmarks/scheduler_drf.py [--runs 3] [--agents 10000] [--strategy pack]

Each cluster is a mix of sensor nodes, gateways and servers; 100 frameworks (10 on small clusters) of
different weights ask for four demands each. Placements per second are of the calls of `schedule`, the
first one with the complete snapshot included, and not of the books around them. Printed are the median
of the runs with least and most. "One more task" is a call with one new task on a snapshot that is full
and has been seen before: of a demand that waits already, and of one that nobody has asked for yet.
The reference (progressive filling with fractions, first fit) does the same small cluster; its ratio says
what the indices are worth.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal

from edgerm_scheduler_drf.config import DrfConfig
from edgerm_scheduler_drf.scheduler import DrfScheduler

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.builtin.first_fit import FirstFitScheduler
from edgerm_core.ids import AgentId, FrameworkId
from edgerm_core.interfaces import Scheduler
from edgerm_core.resources import Resources
from edgerm_core.testing.clusters import Cluster, task_spec

Strategy = Literal["pack", "spread"]

MACHINES = (("1", "512"), ("4", "4096"), ("8", "16384"), ("64", "262144"))
SIZES = ((10, 10, 100), (100, 10, 1_000), (1_000, 100, 10_000), (10_000, 100, 100_000))
"""Agents, frameworks, tasks."""

NAIVE_SIZE = (20, 5, 200)


def make_cluster(agents: int, frameworks: int, tasks: int, seed: int, *, unlike: bool = False) -> Cluster:
    """Return a cluster in which the tasks wait; `unlike`: hardly two tasks ask for the same."""
    rng = random.Random(seed)
    cluster = Cluster()
    for number in range(agents):
        cpus, mem = rng.choice(MACHINES)
        cluster.add_agent(
            AgentInfo(
                AgentId(f"a{number:05}"),
                totals=Resources.parse(f"cpus:{cpus};mem:{mem}"),
                executors=(Fingerprint("process"),),
            )
        )
    for number in range(frameworks):
        framework_id = cluster.add_framework(f"f{number:03}", weight=rng.choice([500, 1000, 2000, 3000]))
        if unlike:
            for _ in range(tasks // frameworks):
                cpus, mem = f"{rng.uniform(0.1, 2):.3f}", f"{rng.uniform(16, 1024):.3f}"
                cluster.submit(framework_id, task_spec(f"cpus:{cpus};mem:{mem}"))
            continue
        for _ in range(4):
            spec = task_spec(
                f"cpus:{rng.choice([0.1, 0.25, 0.5, 1, 2])};mem:{rng.choice([64, 128, 512, 3000])}"
            )
            cluster.submit(framework_id, spec, tasks // frameworks // 4)
    return cluster


def fill(cluster: Cluster, scheduler: Scheduler) -> tuple[int, float]:
    """Let the scheduler place what fits; returns placements and the seconds its calls took."""
    placed, seconds, complete = 0, 0.0, True
    while True:
        snapshot = cluster.snapshot(complete=complete)
        complete = False
        begin = time.perf_counter()
        decisions = scheduler.schedule(snapshot)
        seconds += time.perf_counter() - begin
        cluster.forget_changes()
        if not decisions:
            return placed, seconds
        for decision in decisions:
            assert cluster.apply(decision), cluster.refusals[-1]
        placed += len(decisions)


def spread_of(values: list[float], unit: str, digits: int = 0) -> str:
    """Return median, least and most as text."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} {unit} ({low:,.{digits}f} to {high:,.{digits}f})"


def rates(runs: int, make: Callable[[int], tuple[Cluster, Scheduler]]) -> tuple[int, list[float]]:
    """Return placements of a run and placements per second of each."""
    found: list[float] = []
    placed = 0
    for run in range(runs):
        cluster, scheduler = make(run)
        placed, seconds = fill(cluster, scheduler)
        found.append(placed / seconds)
    return placed, found


def one_more_ms(agents: int, strategy: Strategy, demand: Callable[[int], str]) -> list[float]:
    """Return the milliseconds of a call with one more task on a full cluster, twenty times."""
    cluster = make_cluster(agents, 100, 40 * agents, seed=1)
    scheduler = DrfScheduler(DrfConfig(strategy=strategy))
    for framework in list(cluster.frameworks):
        for spec in ("cpus:2;mem:3000", "cpus:0.1;mem:64"):
            cluster.submit(framework, task_spec(spec), 20 * agents // 100)
    fill(cluster, scheduler)
    found: list[float] = []
    for number in range(20):
        cluster.submit(next(iter(cluster.frameworks)), task_spec(demand(number)))
        snapshot = cluster.snapshot()
        begin = time.perf_counter()
        scheduler.schedule(snapshot)
        found.append((time.perf_counter() - begin) * 1000)
        cluster.forget_changes()
    return found


def naive_rate() -> float:
    """Return the placements per second of progressive filling by its definition, in fractions."""
    cluster = make_cluster(*NAIVE_SIZE, seed=1)
    free: dict[str, dict[str, Fraction]] = {
        a.id: {k: Fraction(v) for k, v in a.free.scalars.items()} for a in cluster.agents.values()
    }
    totals = {k: Fraction(v) for k, v in cluster.totals.items()}
    held: dict[FrameworkId, dict[str, Fraction]] = {f: {} for f in cluster.frameworks}
    waiting: dict[FrameworkId, list[dict[str, Fraction]]] = {
        f.id: [{k: Fraction(v) for k, v in t.spec.resources.quantities.items()} for t in f.pending]
        for f in cluster.frameworks.values()
    }
    weights = {f.id: Fraction(f.weight, 1000) for f in cluster.frameworks.values()}

    def fits(need: dict[str, Fraction]) -> str | None:
        return next(
            (a for a, has in free.items() if all(has.get(k, 0) >= v for k, v in need.items())), None
        )

    placed, begin = 0, time.perf_counter()
    while True:
        choices: list[tuple[Fraction, FrameworkId, int, str]] = []
        for framework, tasks in waiting.items():
            for index, need in enumerate(tasks):
                if (agent := fits(need)) is not None:
                    share = max(held[framework].get(k, Fraction(0)) / t for k, t in totals.items())
                    choices.append((share / weights[framework], framework, index, agent))
                    break
        if not choices:
            return placed / (time.perf_counter() - begin)
        _, framework, index, agent = min(choices)
        need = waiting[framework].pop(index)
        for name, amount in need.items():
            free[agent][name] -= amount
            held[framework][name] = held[framework].get(name, Fraction(0)) + amount
        placed += 1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--agents", type=int, default=10_000, help="size of the largest cluster")
    parser.add_argument("--strategy", choices=["pack", "spread"], default="pack")
    options = parser.parse_args()
    strategy: Strategy = options.strategy
    config = DrfConfig(strategy=strategy)

    def drf(size: tuple[int, int, int], **kind: Any) -> Callable[[int], tuple[Cluster, Scheduler]]:
        return lambda run: (make_cluster(*size, seed=run, **kind), DrfScheduler(config))

    fill(make_cluster(*SIZES[1], seed=0), DrfScheduler(config))  # Warm up.
    print(f"drf ({strategy}), placements per second: median (least to most) of {options.runs} runs")
    costs: dict[int, float] = {}
    for size in (size for size in SIZES if size[0] <= options.agents):
        placed, found = rates(options.runs, drf(size))
        costs[size[2]] = 1e6 / statistics.median(found)
        of = f"{size[0]:>6,} agents {size[1]:>4} frameworks {size[2]:>7,} tasks"
        print(f"  {of}: {spread_of(found, '/s')}; {placed:,} placed, {costs[size[2]]:.1f} us each")
    print(
        f"  cost of a placement, largest over smallest cluster: {list(costs.values())[-1] / costs[100]:.2f}"
    )
    unlike = (min(options.agents, 1_000), 100, min(options.agents, 1_000) * 10)
    placed, found = rates(options.runs, drf(unlike, unlike=True))
    print(f"  {unlike[0]:,} agents, {unlike[2]:,} tasks, no two alike: {spread_of(found, '/s')}")

    print(f"one more task, {options.agents:,} agents full, milliseconds of the call")
    known = one_more_ms(options.agents, strategy, lambda _: "cpus:2;mem:3000")
    print(f"  of a demand that waits already: {spread_of(known, 'ms', 3)}")
    fresh = one_more_ms(options.agents, strategy, lambda n: f"cpus:1.{n + 1:03};mem:{700 + n}")
    print(f"  of a demand that is new:        {spread_of(fresh, 'ms', 3)}")

    _, ours = rates(options.runs, drf(NAIVE_SIZE))
    _, simple = rates(options.runs, lambda run: (make_cluster(*NAIVE_SIZE, seed=run), FirstFitScheduler()))
    naive = [naive_rate() for _ in range(options.runs)]
    print(f"{NAIVE_SIZE[0]} agents, {NAIVE_SIZE[1]} frameworks, {NAIVE_SIZE[2]} tasks")
    print(f"  drf       {spread_of(ours, '/s')}")
    print(f"  first-fit {spread_of(simple, '/s')}")
    print(f"  reference {spread_of(naive, '/s')}")
    print(f"  drf over reference: {statistics.median(ours) / statistics.median(naive):.0f} times")


if __name__ == "__main__":
    main()
