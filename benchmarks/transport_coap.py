"""Heartbeats a CoAP listener takes, beside aiocoap's server and libcoap's, with memory before and after.

    python benchmarks/transport_coap.py [--seconds 4] [--runs 3] [--peers 64,1000]

Each server is a process of its own, each peer a UDP port with one confirmable request on its way, all of
them in one C program (`coap_load.c`, compiled with cc). Ours carries out exchanges of sessions, whose
handler answers each heartbeat as a master would; the others answer two bytes with two bytes. Printed are
the median of the runs with least and most, the ratio of the medians to aiocoap's, and how much the server's
memory grew while it was under load.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import msgspec
from edgerm_transport_coap.config import CoapConfig
from edgerm_transport_coap.transport import CoapTransport

from edgerm_core.codec import encode
from edgerm_core.errors import ConnectionClosed
from edgerm_core.interfaces import Connection
from edgerm_core.messages import HeartbeatAck
from edgerm_core.testing.processes import free_url

LIBCOAP_SERVER = "coap-server-notls"

PUT = "3"
WARM_UP_S = 0.3


async def serve_edgerm(port: int) -> None:
    answer = encode(HeartbeatAck())

    async def acknowledge(connection: Connection) -> None:
        try:
            while True:
                await connection.receive()
                await connection.send(answer)
        except ConnectionClosed:
            pass

    listener = await CoapTransport(CoapConfig()).listen(f"coap://127.0.0.1:{port}")
    await listener.serve(acknowledge)


async def serve_aiocoap(port: int) -> None:
    import aiocoap  # type: ignore[import-untyped]
    from aiocoap import resource

    class Beats(resource.Resource):  # type: ignore[misc]
        async def render_put(self, request: aiocoap.Message) -> aiocoap.Message:
            return aiocoap.Message(code=aiocoap.CHANGED, payload=b"\x81\x04")

    site = resource.Site()
    site.add_resource(["beat"], Beats())
    await aiocoap.Context.create_server_context(site, bind=("127.0.0.1", port), transports=["udp6"])
    await asyncio.get_running_loop().create_future()


SERVERS = {"edgerm": serve_edgerm, "aiocoap": serve_aiocoap}
LOADS = {"edgerm": ("edgerm",), "aiocoap": (PUT, "beat"), "libcoap": (PUT, "example_data")}


class Figures(msgspec.Struct):
    """What one run found."""

    per_s: float
    p50_us: float
    p99_us: float
    lost: int
    errors: int
    before_bytes: int
    after_bytes: int
    cpu_s: float


@contextmanager
def server_process(kind: str) -> Iterator[tuple[int, int]]:
    """Yield the port and the process id of a server."""
    port = int(free_url("coap").rpartition(":")[2])
    if kind == "libcoap":
        command = [LIBCOAP_SERVER, "-A", "127.0.0.1", "-p", str(port), "-v", "0"]
    else:
        command = [sys.executable, __file__, "--serve", kind, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(2.0)
        assert process.poll() is None, f"{kind} did not start"
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no VmRSS")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def measure(load: Path, kind: str, peers: int, seconds: float) -> Figures:
    with server_process(kind) as (port, pid):
        subprocess.run(
            [load, str(port), str(peers), str(WARM_UP_S), *LOADS[kind]], check=True, capture_output=True
        )
        before, cpu = resident_bytes(pid), cpu_seconds(pid)
        done = subprocess.run(
            [load, str(port), str(peers), str(seconds), *LOADS[kind]],
            check=True,
            capture_output=True,
            text=True,
        )
        per_s, p50_us, p99_us, lost, errors = done.stdout.split()
        return Figures(
            float(per_s),
            float(p50_us),
            float(p99_us),
            int(lost),
            int(errors),
            before,
            resident_bytes(pid),
            cpu_seconds(pid) - cpu,
        )


def report(peers: int, found: dict[str, list[Figures]], seconds: float) -> None:
    print(f"heartbeats, {peers} peers")
    for kind, runs in found.items():
        rates = [run.per_s for run in runs]
        middle = sorted(runs, key=lambda run: run.per_s)[len(runs) // 2]
        grown = (middle.after_bytes - middle.before_bytes) / 2**20
        print(
            f"  {kind:<8}{statistics.median(rates):>9,.0f}/s ({min(rates):,.0f} to {max(rates):,.0f}, "
            f"{len(rates)} runs)  p50 {middle.p50_us / 1000:.2f} ms  p99 {middle.p99_us / 1000:.2f} ms  "
            f"CPU {1e6 * middle.cpu_s / max(1, middle.per_s * seconds):.0f} us each  "
            f"memory {middle.before_bytes / 2**20:.0f} MiB, grown by {grown:.1f}  "
            f"lost {middle.lost}, errors {middle.errors}"
        )
    for other in found:
        if other != "edgerm":
            ratio = statistics.median(run.per_s for run in found["edgerm"]) / statistics.median(
                run.per_s for run in found[other]
            )
            print(f"  edgerm / {other}: {ratio:.2f}")
    print()


def compare(arguments: argparse.Namespace) -> None:
    kinds = [kind for kind in LOADS if kind != "libcoap" or shutil.which(LIBCOAP_SERVER)]
    with tempfile.TemporaryDirectory() as directory:
        load = Path(directory) / "coap_load"
        source = Path(__file__).with_name("coap_load.c")
        subprocess.run(["cc", "-O2", "-o", load, source], check=True)
        for peers in map(int, arguments.peers.split(",")):
            found: dict[str, list[Figures]] = {kind: [] for kind in kinds}
            for _ in range(arguments.runs):
                for kind, runs in found.items():
                    runs.append(measure(load, kind, peers, arguments.seconds))
            report(peers, found, arguments.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=sorted(SERVERS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peers", default="64,1000")
    arguments = parser.parse_args()
    if arguments.serve:
        anyio.run(SERVERS[arguments.serve], arguments.port)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
