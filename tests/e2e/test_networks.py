"""Agents behind a NAT, on networks that lose, crawl, and change under them. Over WebSocket and over CoAP.

Three network namespaces: the master's, a router that masquerades, and the agents' behind it. Nothing may
get lost and nothing may start twice, which a file tells that every start appends to.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgerm_core.testing.processes import Cluster, ending

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

MASTER, ROUTER, OTHER_ROUTER = "198.51.100.1", "198.51.100.2", "198.51.100.3"
INSIDE, AGENT, OTHER_AGENT = "192.168.77.1", "192.168.77.10", "192.168.77.11"
WS_PORT, COAP_PORT, LOCAL_PORT = 7070, 5683, 7071

SLEEP_S = 12.0
"""How long the sleepy device sleeps between two polls; test_sleepers.py has a minute."""

PATIENCE_S = 150.0
"""For tasks on a bad network: whose packets get lost several times in a row waits for long."""

TASKS = 4
"""Started at once on each agent, in each situation."""

MASTER_CONFIG = f"""\
[master]
insecure = true
heartbeat_s = 1.0
heartbeat_constrained_s = {SLEEP_S}
lease_grace_s = 5.0
"""

AGENT_CONFIG = "[agent]\ninsecure = true\n"

SLEEPER_CONFIG = (
    AGENT_CONFIG
    + f"""\
[transport.coap]
observe = false
round_trip_s = {SLEEP_S}
max_message_bytes = 1024
"""
)


class Network:
    """Three namespaces in a row, and what happens between them."""

    def __init__(self) -> None:
        mark = f"edgerm{os.getpid()}"
        self.master, self.router, self.agents = (f"{mark}-{name}" for name in ("m", "r", "a"))

    def run(self, namespace: str, *command: str) -> str:
        done = subprocess.run(
            [*self.enter(namespace), *command], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def enter(self, namespace: str) -> list[str]:
        """Return the command that runs another one there. It leaves /sys alone, unlike `ip netns exec`."""
        return ["nsenter", f"--net=/run/netns/{namespace}"]

    def build(self) -> None:
        for namespace in (self.master, self.router, self.agents):
            subprocess.run(["ip", "netns", "add", namespace], check=True)
            self.run(namespace, "ip", "link", "set", "lo", "up")
        for name, other, network in (("out", self.master, "m0"), ("in", self.agents, "a0")):
            self.run(self.router, "ip", "link", "add", name, "type", "veth", "peer", network)
            self.run(self.router, "ip", "link", "set", network, "netns", other)
            self.run(self.router, "ip", "link", "set", name, "up")
            self.run(other, "ip", "link", "set", network, "up")
        self.run(self.master, "ip", "address", "add", f"{MASTER}/24", "dev", "m0")
        self.run(self.router, "ip", "address", "add", f"{ROUTER}/24", "dev", "out")
        self.run(self.router, "ip", "address", "add", f"{INSIDE}/24", "dev", "in")
        self.move_agent("", AGENT)
        self.run(self.router, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        rules = f"""
            table ip nat {{
                chain postrouting {{ type nat hook postrouting priority 100; oifname "out" masquerade; }}
            }}
            table ip count {{
                counter ws {{}}
                counter coap {{}}
                chain forward {{
                    type filter hook forward priority 10;
                    tcp dport {WS_PORT} counter name ws
                    tcp sport {WS_PORT} counter name ws
                    udp dport {COAP_PORT} counter name coap
                    udp sport {COAP_PORT} counter name coap
                }}
            }}
            table ip lose {{
                chain forward {{ type filter hook forward priority 0; }}
            }}
        """
        self.run(self.router, "nft", rules)

    def remove(self) -> None:
        for namespace in (self.agents, self.master, self.router):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)

    # --- what happens -------------------------------------------------------------------------

    def move_agent(self, old: str, new: str) -> None:
        """The agents' machine gets another address."""
        if old:
            self.run(self.agents, "ip", "address", "delete", f"{old}/24", "dev", "a0")
        self.run(self.agents, "ip", "address", "add", f"{new}/24", "dev", "a0")
        self.run(self.agents, "ip", "route", "replace", "default", "via", INSIDE)

    def move_router(self, old: str, new: str) -> None:
        """The NAT gets another address outside, and forgets all it knew."""
        self.run(self.router, "ip", "address", "delete", f"{old}/24", "dev", "out")
        self.run(self.router, "ip", "address", "add", f"{new}/24", "dev", "out")

    @contextlib.contextmanager
    def losing(self, one_in: int) -> Iterator[None]:
        """Lose one packet in so many, both ways."""
        drop = ("numgen", "random", "mod", str(one_in), "==", "0", "drop")
        self.run(self.router, "nft", "add", "rule", "ip", "lose", "forward", *drop)
        try:
            yield
        finally:
            self.run(self.router, "nft", "flush", "chain", "ip", "lose", "forward")

    @contextlib.contextmanager
    def crawling(self, rate: str) -> Iterator[None]:
        """Pass only so much each way."""
        shape = ("root", "tbf", "rate", rate, "burst", "1600", "latency", "5s")
        for device in ("out", "in"):
            self.run(self.router, "tc", "qdisc", "add", "dev", device, *shape)
        try:
            yield
        finally:
            for device in ("out", "in"):
                self.run(self.router, "tc", "qdisc", "delete", "dev", device, "root")

    def counted(self) -> dict[str, int]:
        """Return the bytes of IP packets so far, both ways, by transport."""
        found = json.loads(self.run(self.router, "nft", "--json", "list", "counters"))
        counters = [entry["counter"] for entry in found["nftables"] if "counter" in entry]
        return {counter["name"]: counter["bytes"] for counter in counters}


class NetworkCluster(Cluster):
    """A master outside, agents inside."""

    def __init__(self, directory: Path, network: Network) -> None:
        super().__init__(directory, MASTER_CONFIG)
        self.network = network
        # Commands talk to the master from its own machine.
        self.url = f"ws://127.0.0.1:{LOCAL_PORT}"
        self.urls = {
            "local": self.url,
            "ws": f"ws://{MASTER}:{WS_PORT}",
            "coap": f"coap://{MASTER}:{COAP_PORT}",
        }
        self.starts = directory / "starts"
        self.starts.touch()

    def within(self, name: str) -> list[str]:
        network = self.network
        return network.enter(network.master if name in ("", "master") else network.agents)

    def add_agent(self, name: str, scheme: str, config: str, *arguments: str) -> None:
        self.config = self.directory / f"{name}.toml"
        self.config.write_text(config)
        self.start_agent(
            name, "--attribute", f"kind={name}", *arguments, url=self.urls[scheme], ready=False
        )

    def submit(self, situation: str, agent: str) -> None:
        """Start TASKS tasks on an agent, each of which notes that it has started."""
        self.edgerm(
            *("run", "--detach", "--name", f"{situation}-{agent}", "--count", str(TASKS), "--cpus", "0.01"),
            *("--mem", "1", "--constraint", f"kind == {agent}", "--process", "--"),
            *("sh", "-c", f"echo {situation}-{agent}-$EDGERM_TASK_ID >> {self.starts}"),
        )

    def finished(self, prefix: str) -> int:
        found = [row for row in self.tasks() if row["name"].startswith(prefix)]
        return len([row for row in found if row["state"] == "FINISHED"])

    def check_starts(self, prefix: str) -> None:
        """Each task has started, and none twice."""
        lines = [line for line in self.starts.read_text().split() if line.startswith(prefix)]
        assert len(lines) == TASKS, lines
        assert len(set(lines)) == TASKS, lines

    def connected(self, name: str) -> bool:
        return self.agent(name).get("connected") is True

    def registrations(self, name: str) -> int:
        """Return how often the agent has registered, by its log."""
        return self.log(name).count("registered with")


def missing() -> str:
    """Return what this machine lacks for these tests; empty: nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    lacking = [name for name in ("ip", "nft", "tc", "nsenter", "sysctl") if not shutil.which(name)]
    if lacking:
        return f"{', '.join(lacking)} not found: install Debian's packages iproute2, nftables, procps"
    return ""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkCluster]:
    if problem := missing():
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    network = Network()
    try:
        network.build()
        with ending(NetworkCluster(tmp_path_factory.mktemp("networks"), network)) as cluster:
            cluster.start_master()
            cluster.add_agent("on-ws", "ws", AGENT_CONFIG)
            cluster.add_agent("on-coap", "coap", AGENT_CONFIG)
            cluster.add_agent("sleeper", "coap", SLEEPER_CONFIG, "--attribute", "link.class=constrained")
            for name in ("on-ws", "on-coap", "sleeper"):
                cluster.wait(f"{name} is there", lambda name=name: cluster.connected(name))  # type: ignore[misc]
                cluster.wait(f"{name} knows", lambda name=name: cluster.registrations(name) == 1)  # type: ignore[misc]
            yield cluster
    finally:
        network.remove()


@contextlib.contextmanager
def situation(cluster: NetworkCluster, name: str) -> Iterator[None]:
    """Submit tasks to both agents; what happens in the block happens to them while they start."""
    before, began = cluster.network.counted(), time.monotonic()
    cluster.submit(name, "on-coap")
    cluster.submit(name, "on-ws")
    yield
    cluster.wait(
        f"all tasks of {name} have finished", lambda: cluster.finished(name) == 2 * TASKS, PATIENCE_S
    )
    took_s = time.monotonic() - began
    after = cluster.network.counted()
    used = ", ".join(f"{key} {after[key] - before[key]}" for key in sorted(after))
    print(f"{name}: {2 * TASKS} tasks in {took_s:.1f} s, bytes of IP packets: {used}")
    for agent in ("on-ws", "on-coap"):
        cluster.check_starts(f"{name}-{agent}")


def test_behind_a_nat(cluster: NetworkCluster) -> None:
    with situation(cluster, "nat"):
        pass


def test_the_nat_forgets_and_gets_another_address(cluster: NetworkCluster) -> None:
    before = cluster.registrations("on-coap")
    cluster.network.move_router(ROUTER, OTHER_ROUTER)
    with situation(cluster, "rebinding"):
        pass
    # WebSocket dials again; on CoAP the session goes on.
    assert cluster.registrations("on-coap") == before, cluster.log("on-coap")


def test_the_agent_gets_another_address(cluster: NetworkCluster) -> None:
    before = cluster.registrations("on-coap")
    cluster.network.move_agent(AGENT, OTHER_AGENT)
    with situation(cluster, "moving"):
        pass
    assert cluster.registrations("on-coap") == before, cluster.log("on-coap")


def test_one_packet_in_ten_gets_lost(cluster: NetworkCluster) -> None:
    with cluster.network.losing(10), situation(cluster, "losing"):
        pass


def test_a_link_of_20_kbit_per_second(cluster: NetworkCluster) -> None:
    with cluster.network.crawling("20kbit"), situation(cluster, "crawling"):
        pass


def sleeper_takes_s(cluster: NetworkCluster, name: str) -> float:
    """Submit tasks to the sleepy device; return how long it had been silent when they came about there."""
    asked_at, silent_s = 0.0, 0.0

    def asleep() -> bool:
        nonlocal asked_at, silent_s
        asked_at, silent_s = time.time(), cluster.agent("sleeper")["last_heard_s"]
        return bool(silent_s > SLEEP_S / 4)

    cluster.wait("the device sleeps", asleep, 4 * SLEEP_S)
    cluster.submit(name, "sleeper")
    cluster.wait(
        f"all tasks of {name} have finished",
        lambda: cluster.finished(f"{name}-sleeper") == TASKS,
        PATIENCE_S,
    )
    cluster.check_starts(f"{name}-sleeper")
    ids = [row["id"] for row in cluster.tasks() if row["name"] == f"{name}-sleeper"]
    stories = [line for task_id in ids for line in cluster.rows("story", task_id)]
    heard_at = min(line["at"] for line in stories if line["state"] not in ("PENDING", "STAGING"))
    slept_s = float(heard_at - (asked_at - silent_s))
    print(f"{name}: {TASKS} tasks after {slept_s:.1f} s of silence, awake every {SLEEP_S:g} s")
    return slept_s


def test_a_device_that_sleeps_gets_its_tasks_when_it_wakes(cluster: NetworkCluster) -> None:
    for name in ("asleep", "asleep-again"):
        # If it woke before they were submitted, it has slept once more since. What it said before it slept
        # may have come late, as packets do: most of all those of the crawling link of the test before.
        assert sleeper_takes_s(cluster, name) > SLEEP_S / 2
    assert cluster.connected("sleeper")
