"""Runs seeds: one of them, or fresh ones for a while on all cores; a failure is shrunk and explained."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Final

import click
import msgspec

from edgerm_core.testing.simulator.cluster import Outcome, describe, run_plan
from edgerm_core.testing.simulator.draw import draw
from edgerm_core.testing.simulator.plan import Plan
from edgerm_core.testing.simulator.shrink import SHRINK_S, kind_of, shrink, with_actions
from edgerm_core.testing.simulator.swarm import EVERYTHING, Swarm

BATCH: Final = 5
"""Seeds that a process takes at once."""

STORY_LINES: Final = 60
"""The last lines of a story that are printed with a failure; `--story` prints all."""

MAX_SEED: Final = 1 << 32


class Finding(msgspec.Struct, frozen=True):
    """A seed that failed.

    Attributes:
        kept: the actions that are left after shrinking, by index.
        actions: they, as text, with their times.
        lines: the story's last lines.
    """

    seed: int
    failure: str
    kept: tuple[int, ...]
    of: int
    actions: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def command(self) -> str:
        """What runs exactly this again."""
        kept = ",".join(map(str, self.kept))
        return f"python -m edgerm_core.testing.simulator --seed {self.seed} --keep {kept} --story"

    def __str__(self) -> str:
        happened = "\n".join(f"  {action}" for action in self.actions)
        end = "\n".join(self.lines)
        return (
            f"seed {self.seed}: {self.failure}\n\n"
            f"what has to happen ({len(self.kept)} of {self.of} actions):\n{happened}\n\n"
            f"how it ends:\n{end}\n\nagain: {self.command}\n"
        )


class Tally(msgspec.Struct):
    """What many seeds came to."""

    seeds: int = 0
    virtual_s: float = 0.0
    events: int = 0
    wall_s: float = 0.0
    longest_settling_s: float = 0.0
    counts: dict[str, int] = {}
    failed: list[tuple[int, str]] = []

    def add(self, seed: int, outcome: Outcome) -> None:
        """Count a seed in."""
        self.seeds += 1
        self.virtual_s += outcome.virtual_s
        self.events += outcome.events
        self.longest_settling_s = max(self.longest_settling_s, outcome.settled_s)
        for what, count in outcome.counts.items():
            self.counts[what] = self.counts.get(what, 0) + count
        if outcome.failure:
            self.failed.append((seed, outcome.failure))

    def merge(self, other: Tally) -> None:
        """Count another tally in."""
        self.seeds += other.seeds
        self.virtual_s += other.virtual_s
        self.events += other.events
        self.longest_settling_s = max(self.longest_settling_s, other.longest_settling_s)
        for what, count in other.counts.items():
            self.counts[what] = self.counts.get(what, 0) + count
        self.failed += other.failed

    def __str__(self) -> str:
        per_minute = self.seeds / self.wall_s * 60 if self.wall_s else 0.0
        hours = self.virtual_s / 3600
        seen = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        return (
            f"{self.seeds} seeds in {self.wall_s:.0f} s: {per_minute:.0f} seeds/min, "
            f"{hours:.1f} virtual hours ({hours / max(self.wall_s, 1e-9):.2f} per second), "
            f"{self.events} events; settled within {self.longest_settling_s:.0f} s; {seen}"
        )


def run_seeds(seeds: list[int], swarm: Swarm = EVERYTHING) -> Tally:
    """Run some seeds, one after the other, and return what they came to."""
    tally = Tally(counts={}, failed=[])
    start = time.monotonic()
    for seed in seeds:
        tally.add(seed, run_plan(draw(seed, swarm)))
    tally.wall_s = time.monotonic() - start
    return tally


def run_for(
    seconds: float, first: int, *, processes: int | None = None, swarm: Swarm = EVERYTHING
) -> Tally:
    """Run seeds from `first` upwards for so many seconds on all cores; stop early at a failure."""
    start = time.monotonic()
    total = Tally(counts={}, failed=[])
    workers = processes or os.cpu_count() or 1
    numbers = iter(range(first, first + MAX_SEED))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        under_way: set[Future[Tally]] = set()
        while True:
            while len(under_way) < workers and time.monotonic() - start < seconds and not total.failed:
                under_way.add(pool.submit(run_seeds, _take(numbers, BATCH), swarm))
            if not under_way:
                break
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for each in done:
                total.merge(each.result())
    total.wall_s = time.monotonic() - start
    return total


def _take(numbers: Iterator[int], count: int) -> list[int]:
    return [next(numbers) for _ in range(count)]


def find_story(
    seed: int,
    *,
    swarm: Swarm = EVERYTHING,
    seconds: float = SHRINK_S,
    run: Callable[[Plan], Outcome] = run_plan,
) -> Finding:
    """Shrink a seed that fails and return its story."""
    plan = draw(seed, swarm)
    kind = kind_of(run(plan).failure)
    kept = shrink(plan, lambda fewer: kind_of(run(fewer).failure) == kind, seconds=seconds)
    return explain(plan, kept)


def explain(plan: Plan, kept: list[int]) -> Finding:
    """Run a plan with some of its actions and return what it came to, with its story."""
    fewer = with_actions(plan, kept)
    outcome = run_plan(fewer, keep_story=True)
    actions = tuple(f"{action.at:9.3f} {describe(action)}" for action in fewer.actions)
    return Finding(
        plan.seed, outcome.failure, tuple(kept), len(plan.actions), actions, outcome.lines[-STORY_LINES:]
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=int, help="Run this seed; with --seconds: begin with it.")
@click.option("--seconds", type=float, help="Run one seed after the other for so long, on all cores.")
@click.option("--keep", help="Of the seed's actions, only these, as a failure has printed them: 0,3,17.")
@click.option("--story", is_flag=True, help="Print the whole story.")
@click.option("--scheduler", default="", help="Use this installed scheduler in every seed.")
def main(seed: int | None, seconds: float | None, keep: str | None, story: bool, scheduler: str) -> None:
    """Run simulated clusters in virtual time. Exits with 1 if something that must hold does not.

    Without options: 60 seconds of fresh seeds.
    """
    swarm = msgspec.structs.replace(EVERYTHING, scheduler=scheduler)
    if seed is not None and seconds is None:
        _run_one(seed, keep, story, swarm)
        return
    first = seed if seed is not None else random.SystemRandom().randrange(MAX_SEED)
    click.echo(f"seeds from {first} on")
    tally = run_for(60.0 if seconds is None else seconds, first, swarm=swarm)
    click.echo(str(tally))
    if tally.failed:
        failed, _ = min(tally.failed)
        click.echo(f"seed {failed} failed; looking for the shortest story …")
        click.echo(str(find_story(failed, swarm=swarm)))
        sys.exit(1)


def _run_one(seed: int, keep: str | None, story: bool, swarm: Swarm) -> None:
    plan = draw(seed, swarm)
    if keep is not None:
        plan = with_actions(plan, [int(number) for number in keep.split(",") if number])
    outcome = run_plan(plan, keep_story=story)
    for line in outcome.lines:
        click.echo(line)
    if not outcome.failure:
        tally = Tally(counts={}, failed=[])
        tally.add(seed, outcome)
        click.echo(
            f"seed {seed} holds: {outcome.digest}, settled {outcome.settled_s:.0f} s after the last fault"
        )
        return
    if keep is None:
        click.echo(str(find_story(seed, swarm=swarm)))
    else:
        click.echo(f"seed {seed}: {outcome.failure}")
    sys.exit(1)
