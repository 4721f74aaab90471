"""CoAP at load: our listener and the whole master beside aiocoap's server and libcoap's.

    python benchmarks/transport_coap.py [--seconds 4] [--runs 3] [--peers 64,1000] [--sleepy 10000]

Each server is a process of its own, each peer a UDP port with one confirmable request on its way, all of
them in one C program (`coap_load.c`, compiled with cc). What is measured:

    heartbeats  the listener with a handler that answers at once, and a master whose agents have registered;
                the others answer two bytes with two bytes. The median of the runs with least and most, the
                ratio of the medians, and how much the server's memory grew while it was under load
                (ours: with a new session for each peer)
    beside      how long an agent and a framework on WebSocket wait for an answer of the master, while it is
                idle and while CoAP heartbeats come as fast as they are answered
    sleepy      so many agents, each with a heartbeat a minute: processor time and memory of the master
    bytes       of UDP payload that an idle heartbeat of our agent takes
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import msgspec
from edgerm_transport_coap.config import CoapConfig
from edgerm_transport_coap.transport import CoapTransport
from edgerm_transport_ws.config import WsConfig
from edgerm_transport_ws.transport import WsTransport

from edgerm_core.agents import AgentInfo
from edgerm_core.client import connect_framework
from edgerm_core.codec import decode_batch, encode
from edgerm_core.errors import ConnectionClosed
from edgerm_core.ids import AgentId
from edgerm_core.interfaces import Connection
from edgerm_core.messages import Heartbeat, HeartbeatAck, Register
from edgerm_core.testing.processes import cluster_in, free_url

LIBCOAP_SERVER = "coap-server-notls"

PUT = "3"
WARM_UP_S = 0.3
START_S = 2.0
SLEEPY_PAUSE_S = 60.0
SLEEPY_WINDOW_S = 15.0
MASTER_CONFIG = """\
[master]
heartbeat_s = 60.0
heartbeat_constrained_s = 60.0
lease_grace_s = 60.0
[transport.coap]
max_sessions = 200000
"""


def register(name: str) -> bytes:
    return encode(Register((1, 1), AgentInfo(AgentId(name), name), "boot", "incarnation"))


OPENING = register("PEERNAME").hex()

# --- the servers ------------------------------------------------------------------------------


async def serve_listener(port: int) -> None:
    listener = await CoapTransport(CoapConfig()).listen(f"coap://127.0.0.1:{port}")
    await listener.serve(acknowledge)


async def acknowledge(connection: Connection) -> None:
    answer = encode(HeartbeatAck())
    try:
        while True:
            await connection.receive()
            await connection.send(answer)
    except ConnectionClosed:
        pass


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


SERVERS = {"listener": serve_listener, "aiocoap": serve_aiocoap}
LOADS = {
    "listener": ("edgerm",),
    "master": ("edgerm", OPENING),
    "aiocoap": (PUT, "beat"),
    "libcoap": (PUT, "example_data"),
}


class Server(msgspec.Struct):
    """One that runs.

    Attributes:
        ws: the master's other address.
    """

    pid: int
    port: int
    ws: str = ""


@contextmanager
def running(kind: str) -> Iterator[Server]:
    with ExitStack() as stack:
        if kind == "master":
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            cluster = stack.enter_context(cluster_in(Path(directory), MASTER_CONFIG, ("ws", "coap")))
            cluster.start_master()
            port = int(cluster.urls["coap"].rpartition(":")[2])
            yield Server(cluster.processes["master"].pid, port, cluster.url)
            return
        port = int(free_url("coap").rpartition(":")[2])
        command = [sys.executable, __file__, "--serve", kind, "--port", str(port)]
        if kind == "libcoap":
            command = [LIBCOAP_SERVER, "-A", "127.0.0.1", "-p", str(port), "-v", "0"]
        process = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        stack.callback(process.kill)
        time.sleep(START_S)
        assert process.poll() is None, f"{kind} did not start"
        yield Server(process.pid, port)


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no VmRSS")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


# --- heartbeats -------------------------------------------------------------------------------


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


def measure(load: Path, kind: str, peers: int, seconds: float) -> Figures:
    with running(kind) as server:
        command = [str(load), str(server.port), str(peers)]
        subprocess.run([*command, str(WARM_UP_S), *LOADS[kind]], check=True, capture_output=True)
        before, cpu = resident_bytes(server.pid), cpu_seconds(server.pid)
        done = subprocess.run(
            [*command, str(seconds), *LOADS[kind]], check=True, capture_output=True, text=True
        )
        per_s, p50_us, p99_us, lost, errors = done.stdout.split()[-5:]
        return Figures(
            float(per_s),
            float(p50_us),
            float(p99_us),
            int(lost),
            int(errors),
            before,
            resident_bytes(server.pid),
            cpu_seconds(server.pid) - cpu,
        )


def compare(load: Path, peers: int, arguments: argparse.Namespace) -> None:
    kinds = [kind for kind in LOADS if kind != "libcoap" or shutil.which(LIBCOAP_SERVER)]
    found: dict[str, list[Figures]] = {kind: [] for kind in kinds}
    for _ in range(arguments.runs):
        for kind, runs in found.items():
            runs.append(measure(load, kind, peers, arguments.seconds))
    print(f"heartbeats, {peers} peers")
    for kind, runs in found.items():
        rates = [run.per_s for run in runs]
        middle = sorted(runs, key=lambda run: run.per_s)[len(runs) // 2]
        grown = (middle.after_bytes - middle.before_bytes) / 2**20
        print(
            f"  {kind:<9}{statistics.median(rates):>9,.0f}/s ({min(rates):,.0f} to {max(rates):,.0f}, "
            f"{len(rates)} runs)  p50 {middle.p50_us / 1000:.2f} ms  p99 {middle.p99_us / 1000:.2f} ms  "
            f"CPU {1e6 * middle.cpu_s / max(1, middle.per_s * arguments.seconds):.0f} us each  "
            f"memory {middle.before_bytes / 2**20:.0f} MiB, grown by {grown:.1f}  "
            f"lost {middle.lost}, errors {middle.errors}"
        )
    for ours in ("listener", "master"):
        for other in [kind for kind in kinds if kind not in ("listener", "master")]:
            ratio = statistics.median(run.per_s for run in found[ours]) / statistics.median(
                run.per_s for run in found[other]
            )
            print(f"  {ours} / {other}: {ratio:.2f}")
    print()


# --- beside -----------------------------------------------------------------------------------


async def waits(url: str, seconds: float) -> dict[str, list[float]]:
    """Return how long an agent and a framework waited for answers, in seconds."""
    found: dict[str, list[float]] = {"agent": [], "framework": []}
    agent = await WsTransport(WsConfig()).connect(url)
    await agent.send(register("beside"))
    await agent.receive()

    async def beat() -> None:
        await agent.send(encode(Heartbeat()))
        while not any(isinstance(message, HeartbeatAck) for message in decode_batch(await agent.receive())):
            pass

    async with connect_framework(url) as framework, anyio.create_task_group() as group:
        for name, ask in (("agent", beat), ("framework", framework.tasks)):
            group.start_soon(ask_often, ask, seconds, found[name])
    await agent.close()
    return found


async def ask_often(ask: Callable[[], Awaitable[object]], seconds: float, found: list[float]) -> None:
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        await ask()
        found.append(time.perf_counter() - began)
        await asyncio.sleep(0.002)


def beside(load: Path, peers: int, arguments: argparse.Namespace) -> None:
    print(f"answers on WebSocket, beside heartbeats of {peers} CoAP peers")
    with running("master") as server:
        idle = asyncio.run(waits(server.ws, arguments.seconds))
        seconds = arguments.seconds + 2 * START_S
        command = [str(load), str(server.port), str(peers), str(seconds), *LOADS["master"]]
        loading = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        time.sleep(START_S)
        busy = asyncio.run(waits(server.ws, arguments.seconds))
        words = loading.communicate()[0].split()
    for name in idle:
        for state, found in (("idle", idle[name]), ("beside", busy[name])):
            percentiles = statistics.quantiles(found, n=100)
            print(
                f"  {name:<10}{state:<7} p50 {1000 * percentiles[49]:7.2f} ms  "
                f"p99 {1000 * percentiles[98]:7.2f} ms  ({len(found)} answers)"
            )
    print(f"  heartbeats meanwhile: {float(words[-5]):,.0f}/s\n")


# --- sleepy agents ----------------------------------------------------------------------------


def sleepy(load: Path, agents: int) -> None:
    print(f"{agents:,} sleepy agents, a heartbeat every {SLEEPY_PAUSE_S:g} s each")
    with running("master") as server:
        before = resident_bytes(server.pid)
        seconds = SLEEPY_WINDOW_S + 5
        command = [str(load), str(server.port), str(agents), str(seconds), *LOADS["master"]]
        began = time.monotonic()
        loading = subprocess.Popen([*command, str(SLEEPY_PAUSE_S)], stdout=subprocess.PIPE, text=True)
        assert loading.stdout is not None
        assert loading.stdout.readline() == "ready\n"
        took_s = time.monotonic() - began
        time.sleep(START_S)  # What registering has begun is done.
        cpu = cpu_seconds(server.pid)
        time.sleep(SLEEPY_WINDOW_S)
        cpu = cpu_seconds(server.pid) - cpu
        each = (resident_bytes(server.pid) - before) / agents
        per_s, _, _, lost, errors = loading.communicate()[0].split()[-5:]
    print(
        f"  all registered within {took_s:.1f} s; then {100 * cpu / SLEEPY_WINDOW_S:.1f} % of a core, "
        f"{float(per_s):.0f} heartbeats/s, {each / 1024:.1f} KiB each, lost {lost}, errors {errors}\n"
    )


# --- bytes ------------------------------------------------------------------------------------


async def count_bytes() -> None:
    """Let our dialing side exchange heartbeats through a relay that counts."""
    loop = asyncio.get_running_loop()
    sizes: dict[str, list[int]] = {"up": [], "down": []}
    listener = await CoapTransport(CoapConfig()).listen("coap://127.0.0.1:0")
    front, back = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    front.bind(("127.0.0.1", 0))
    back.connect(("127.0.0.1", int(listener.url.rpartition(":")[2])))
    peer: tuple[str, int] = ("", 0)

    def up() -> None:
        nonlocal peer
        data, peer = front.recvfrom(4096)
        sizes["up"].append(len(data))
        back.send(data)

    def down() -> None:
        data = back.recv(4096)
        sizes["down"].append(len(data))
        front.sendto(data, peer)

    loop.add_reader(front.fileno(), up)
    loop.add_reader(back.fileno(), down)
    async with anyio.create_task_group() as group:
        group.start_soon(listener.serve, acknowledge)
        url = f"coap://127.0.0.1:{front.getsockname()[1]}"
        connection = await CoapTransport(CoapConfig(observe=False)).connect(url)
        for _ in range(20):
            await connection.send(encode(Heartbeat()))
            await connection.receive()
        print(f"an idle heartbeat: {sizes['up'][-1]} bytes up, {sizes['down'][-1]} bytes down")
        await connection.close()
        await listener.close()
    for sock in (front, back):
        loop.remove_reader(sock.fileno())
        sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--serve", choices=sorted(SERVERS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peers", default="64,1000")
    parser.add_argument("--sleepy", type=int, default=10_000)
    arguments = parser.parse_args()
    if arguments.serve:
        anyio.run(SERVERS[arguments.serve], arguments.port)
        return
    peers = [int(word) for word in arguments.peers.split(",")]
    with tempfile.TemporaryDirectory() as directory:
        load = Path(directory) / "coap_load"
        subprocess.run(["cc", "-O2", "-o", load, Path(__file__).with_name("coap_load.c")], check=True)
        for count in peers:
            compare(load, count, arguments)
        beside(load, peers[0], arguments)
        sleepy(load, arguments.sleepy)
    asyncio.run(count_bytes())


if __name__ == "__main__":
    main()
