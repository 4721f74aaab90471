"""A board's session with a real master: joining, staying, coming back, over bad networks."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgerm_core.client import task
from edgerm_core.client.blocking import Framework, connect_framework
from edgerm_core.tasks import DisconnectPolicy
from edgerm_core.testing.processes import Cluster, cluster_in
from tests.micropython.conftest import LEASE_S, Board, NewBoard, boards_of, python

WAIT_S = 60.0
ADD = "def main(ctx, a, b):\n    return a + b\n"


class Proxy:
    """Passes datagrams on between boards and the master, and loses and doubles some of them.

    Parameters:
        port: the master's.
        loss: share of the datagrams that are lost, each way, and as many are doubled.
    """

    def __init__(self, port: int, loss: float = 0.0) -> None:
        self._master = ("127.0.0.1", port)
        self._loss = loss
        self._random = random.Random(7)
        self._front = socket.socket(type=socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self._backs: dict[tuple[str, int], socket.socket] = {}
        self._old: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._front, selectors.EVENT_READ, None)
        self._stopping = False
        self.lost = 0
        self.silent = False
        self.url = f"coap://127.0.0.1:{self._front.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(0.1):
                if key.data is None:
                    data, board = self._front.recvfrom(2048)
                    back = self._backs.get(board)
                    if back is None:
                        back = self._backs[board] = socket.socket(type=socket.SOCK_DGRAM)
                        back.connect(self._master)
                        self._selector.register(back, selectors.EVENT_READ, board)
                    self._pass(back, data, None)
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    try:
                        data = key.fileobj.recv(2048)
                    except ConnectionError:
                        continue  # No master there now.
                    if self._backs.get(key.data) is key.fileobj:  # Not forgotten.
                        self._pass(self._front, data, key.data)

    def _pass(self, to: socket.socket, data: bytes, board: tuple[str, int] | None) -> None:
        chance = self._random.random()
        if self.silent or chance < self._loss:
            self.lost += 1
            return
        for _ in range(2 if chance > 1 - self._loss else 1):
            try:
                to.sendto(data, board) if board else to.send(data)
            except ConnectionError:
                pass  # As above.

    def forget(self) -> None:
        """Do as a NAT that has forgotten everybody: the master hears boards from elsewhere now."""
        self._old += self._backs.values()
        self._backs.clear()

    def close(self) -> None:
        self._stopping = True
        self._thread.join()
        for each in (self._front, *self._old, *self._backs.values()):
            each.close()
        self._selector.close()


@pytest.fixture
def proxies(cluster: Cluster) -> Iterator[list[Proxy]]:
    proxies: list[Proxy] = []
    yield proxies
    for proxy in proxies:
        proxy.close()


def proxy_to(cluster: Cluster, proxies: list[Proxy], loss: float = 0.0) -> Proxy:
    proxies.append(Proxy(int(cluster.urls["coap"].rpartition(":")[2]), loss))
    return proxies[-1]


def works(framework: Framework) -> bool:
    return framework.submit(task(python(ADD, 40, 2))).result(WAIT_S) == b"42"


def test_a_board_joins_and_says_what_it_is(cluster: Cluster, new_board: NewBoard) -> None:
    new_board(
        id="esp-1",
        attributes={"floor": 3},
        devices={"temp0": {"driver": "simulated"}, "gone": {"driver": "sht3x", "scl": 1, "sda": 2}},
    )
    agent = cluster.agent("board")
    assert agent["id"] == "esp-1"
    attributes = agent["attributes"]
    assert (attributes["os"], attributes["link.class"], attributes["floor"]) == (
        "micropython",
        "constrained",
        3,
    )
    assert [executor["name"] for executor in agent["executors"]] == ["python"], agent
    assert [device["id"] for device in agent["devices"]] == ["temp0"], agent


def test_it_stays_for_as_long_as_it_runs_and_leaves_when_its_power_is_cut(
    cluster: Cluster, new_board: NewBoard
) -> None:
    board = new_board()
    time.sleep(LEASE_S + 1)
    assert cluster.agent("board")["state"] == "READY"
    board.cut_power()
    cluster.wait("it is missed", lambda: cluster.agent("board")["state"] == "UNREACHABLE")


def test_after_a_reboot_it_is_taken_in_at_once_although_its_old_session_is_not_over(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = new_board()
    for _ in range(2):
        board.cut_power()
        board.start()
        assert works(framework)
    assert "duplicate-agent" not in board.log()


def test_it_comes_back_after_the_master_was_restarted(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    new_board()
    assert works(framework)
    running = framework.submit(task(python("def main(ctx):\n    yield 6\n    return ctx.restarts\n")))
    running.wait_running(WAIT_S)
    cluster.kill("master")
    cluster.start_master()
    cluster.wait("the board is back", lambda: cluster.agent("board").get("connected") is True)
    assert running.result(WAIT_S) == b"0"
    assert works(framework)


def test_tasks_get_through_where_a_tenth_of_all_datagrams_is_lost_each_way(
    tmp_path: Path, library: Path
) -> None:
    # With the leases of the other tests, which are shorter than a repetition, every loss would be an
    # outage.
    config = "[master]\nheartbeat_constrained_s = 5.0\n"
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(cluster_in(tmp_path, config, schemes=("ws", "coap")))
        cluster.start_master()
        proxy = Proxy(int(cluster.urls["coap"].rpartition(":")[2]), 0.1)
        stack.callback(proxy.close)
        stack.enter_context(boards_of(cluster, library))(master=proxy.url)
        framework = stack.enter_context(connect_framework(cluster.url, name="test"))
        tasks_get_through(cluster, framework, proxy)


def tasks_get_through(cluster: Cluster, framework: Framework, proxy: Proxy) -> None:
    big = "# " + "x" * 2500 + "\n" + ADD
    for a in range(4):
        assert framework.submit(task(python(big + f"# {a}\n", a, 2))).result(60) == str(a + 2).encode()
    assert proxy.lost > 3
    stories = [
        row
        for row in cluster.tasks()
        if row["state"] != "FINISHED" or row["restarts"] or row["attempt"] != 1
    ]
    assert stories == []


def test_an_outage_longer_than_the_lease_costs_time_and_no_run(
    cluster: Cluster, new_board: NewBoard, framework: Framework, proxies: list[Proxy]
) -> None:
    proxy = proxy_to(cluster, proxies)
    new_board(master=proxy.url)
    # Shorter than the lease: its end has to wait for the link.
    source = f"def main(ctx):\n    yield {LEASE_S - 3}\n    return ctx.attempt\n"
    # A board that is cut off asks less and less often.
    running = framework.submit(task(python(source), disconnect=DisconnectPolicy(lost_after_s=600)))
    running.wait_running(WAIT_S)
    proxy.silent = True
    cluster.wait("it is missed", lambda: cluster.agent("board")["state"] == "UNREACHABLE")
    proxy.silent = False
    assert running.result(WAIT_S) == b"1"


def test_a_board_whose_address_changes_goes_on_with_its_session(
    cluster: Cluster, new_board: NewBoard, framework: Framework, proxies: list[Proxy]
) -> None:
    proxy = proxy_to(cluster, proxies)
    board = new_board(master=proxy.url, observe=False)
    proxy.forget()
    assert works(framework)
    journal = (board.data / "journal").read_bytes()
    assert journal.count(b"\x82\x18\x67") == 1, "it has opened another session"


def test_without_the_bell_orders_come_with_the_next_heartbeat(
    new_board: NewBoard, framework: Framework
) -> None:
    new_board(observe=False)
    assert works(framework)


def test_frames_longer_than_a_block_come_in_blocks(new_board: NewBoard, framework: Framework) -> None:
    new_board(block_bytes=64)
    draft = task(python("def main(ctx):\n    return ctx.env['TEXT']\n"), env={"TEXT": "y" * 500})
    assert framework.submit(draft).result(WAIT_S) == b"y" * 500


def test_a_config_that_makes_no_sense_is_refused_with_a_sentence(new_board: NewBoard) -> None:
    board: Board = new_board(start=False, master="http://elsewhere")
    board.start()
    assert board.wait() != 0
    assert "http://elsewhere is not an address such as coap://192.168.4.1" in board.log()


def test_a_launch_that_no_frame_of_the_board_holds_stays_with_the_master_which_says_why(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    new_board()
    running = framework.submit(task(python(ADD, 40, 2), env={"TEXT": "y" * 3000}))
    assert works(framework)
    assert "its connection takes 1024" in cluster.edgerm("explain", f"t{running.id}", check=False).stdout
