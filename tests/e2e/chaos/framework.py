"""A framework under test, as a program: submits jobs, kills some, and writes down what it is told.

    python -m tests.e2e.chaos.framework URL ID SEED DIRECTORY submits|offers

It may be killed at any moment: started again, it goes on from what it has written down, under the same id.
Once there is a file `enough` in DIRECTORY it submits nothing more, waits until all its tasks have ended,
and ends with 0.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc

from edgerm_core.client import connect_framework
from edgerm_core.client.framework import Framework
from edgerm_core.client.tasks import Task
from edgerm_core.errors import OfferGone, TransportError
from edgerm_core.messages import TaskUpdate
from tests.e2e.chaos.workload import Job, make_job

PAUSE_S: Final = 0.5
"""Mean time between two submissions."""

AGAIN: Final = 0.3
"""Part of the jobs that are known to have ended which are submitted again after a failover."""

JOBS_AT_ONCE: Final = 3
ENOUGH: Final = "enough"
PATIENCE_S: Final = 300.0
"""For the first connection: the master may be down, or the link cut."""


class Diary:
    """What the framework has done and heard, in a file that outlives it."""

    def __init__(self, path: Path) -> None:
        self.lines = read_diary(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, what: str, key: str, **more: Any) -> None:
        line = {"what": what, "key": key, "at": time.time(), **more}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def keys(self, what: str) -> set[str]:
        return {line["key"] for line in self.lines if line["what"] == what}


def read_diary(path: Path) -> list[dict[str, Any]]:
    """Return what has been written; each line is one write, so there are no halves."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Program:
    """One life of the framework."""

    def __init__(self, framework: Framework, seed: int, directory: Path, diary: Diary) -> None:
        self._framework = framework
        self._seed = seed
        self._directory = directory
        self._diary = diary
        self._rng = random.Random()
        self._over = anyio.Event()
        self._group: anyio.abc.TaskGroup

    async def run(self, offers: bool) -> None:
        """Go on where the diary ends, until it is enough and all tasks have ended."""
        async with anyio.create_task_group() as self._group:
            self._group.start_soon(self._watch)
            begun = [line["number"] for line in self._diary.lines if line["what"] == "intend"]
            ended = self._diary.keys("ended")
            known = [self._job(number) for number in begun]
            again = [job for job in known if job.key not in ended or self._rng.random() < AGAIN]
            for start in range(0, len(again), 50):
                await self._submit(again[start : start + 50])
            number = max(begun, default=-1) + 1
            if offers:
                await self._take_offers(number)
            else:
                await self._submit_more(number)

    async def _watch(self) -> None:
        while not (self._directory / ENOUGH).exists():  # noqa: ASYNC110, files tell nobody
            await anyio.sleep(0.2)
        self._over.set()

    def _job(self, number: int) -> Job:
        return make_job(self._seed, self._framework.id, number)

    # --- submitting ---

    async def _submit_more(self, number: int) -> None:
        while not self._over.is_set():
            jobs = [self._job(number + i) for i in range(self._rng.randint(1, JOBS_AT_ONCE))]
            for offset, job in enumerate(jobs):
                self._diary.write("intend", job.key, number=number + offset)
            number += len(jobs)
            await self._submit(jobs)
            with anyio.move_on_after(self._rng.expovariate(1 / PAUSE_S)):
                await self._over.wait()

    async def _submit(self, jobs: list[Job]) -> None:
        drafts = [job.draft(self._directory) for job in jobs]
        keys = [job.key for job in jobs]
        tasks = await self._persist(partial(self._framework.submit_many, drafts, keys=keys))
        for job in jobs:
            mine, tasks = tasks[: job.instances], tasks[job.instances :]
            self._accepted(job, mine)

    async def _take_offers(self, number: int) -> None:
        async def watch_over() -> None:
            await self._over.wait()
            offering.cancel()

        left: list[Job] = []
        with anyio.CancelScope() as offering:
            self._group.start_soon(watch_over)
            async for offer in self._framework.offers():
                if self._rng.random() < 0.3:
                    await self._framework.decline([offer], refuse_s=0.5)
                    continue
                while len(left) < JOBS_AT_ONCE:
                    job = self._job(number)
                    if job.kind != "never":
                        self._diary.write("intend", job.key, number=number)
                        left.append(job)
                    number += 1
                job = left[0]
                drafts = [job.draft(self._directory)]
                try:
                    with anyio.CancelScope(shield=True):
                        tasks = await self._framework.accept([offer], drafts, refuse_s=0.2)
                except OfferGone:
                    continue
                except TransportError as error:
                    # Accepted or not: nobody can ask again, for the offer's life is over.
                    self._diary.write("unsure", left.pop(0).key, error=str(error))
                    continue
                self._accepted(left.pop(0), tasks)
                await anyio.sleep(self._rng.expovariate(1 / PAUSE_S))
        for job in left:
            self._diary.write("given up", job.key)
        await self._persist(self._framework.suppress)

    async def _persist(self, ask: Any) -> Any:
        """Ask until there is an answer: a master that hangs may not give one in time."""
        while True:
            try:
                return await ask()
            except TransportError as error:
                self._diary.write("unanswered", "", error=str(error))

    # --- following ---

    def _accepted(self, job: Job, tasks: list[Task]) -> None:
        assert len(tasks) == job.instances, (job, tasks)
        self._diary.write("accepted", job.key, ids=[task.id for task in tasks])
        self._group.start_soon(self._follow_all, job, tasks)
        if job.kill_after_s is not None:
            self._group.start_soon(self._kill, job, tasks, job.kill_after_s)

    async def _follow_all(self, job: Job, tasks: list[Task]) -> None:
        async with anyio.create_task_group() as group:
            for index, task in enumerate(tasks):
                group.start_soon(self._follow, job, index, task)
        self._diary.write("ended", job.key)

    async def _follow(self, job: Job, index: int, task: Task) -> None:
        async for update in task.changes():
            if update.version:
                self._diary.write("told", job.key, index=index, **_plain(update))

    async def _kill(self, job: Job, tasks: list[Task], after_s: float) -> None:
        with anyio.move_on_after(after_s):
            await self._over.wait()
        if all(task.state.terminal for task in tasks):
            return
        self._diary.write("kill", job.key)
        await self._persist(partial(self._framework.kill, tasks))
        self._diary.write("kill promised", job.key)


def _plain(update: TaskUpdate) -> dict[str, Any]:
    return {
        "id": update.task_id,
        "version": update.version,
        "state": update.state.name,
        "reason": update.reason,
        "agent": update.agent_name,
        "attempt": update.attempt,
        "restarts": update.restarts,
        "exit_code": update.exit_code,
        "signal": update.signal,
        "result": None if update.result is None else update.result.decode(),
    }


async def main(url: str, framework_id: str, seed: int, directory: Path, offers: bool) -> None:
    """Be the framework."""
    diary = Diary(directory / f"{framework_id}.diary")
    async with connect_framework(
        url,
        id=framework_id,
        name=framework_id,
        insecure=True,
        offers=offers,
        connect_timeout_s=PATIENCE_S,
        on_connection=lambda up, text: print(f"{time.time():.3f} {text}", flush=True),
    ) as framework:
        await Program(framework, seed, directory, diary).run(offers)
    diary.write("done", "")


if __name__ == "__main__":
    address, name, seed_text, where, manner = sys.argv[1:]
    anyio.run(main, address, name, int(seed_text), Path(where), manner == "offers")
