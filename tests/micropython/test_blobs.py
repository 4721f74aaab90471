"""Blobs on a board's flash: fetched, gone on with after a power cut, made room for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgerm_core.client import TaskFailed, task
from edgerm_core.client.blocking import Framework
from edgerm_core.tasks import ReschedulePolicy
from edgerm_core.testing.processes import Cluster
from tests.micropython.conftest import NewBoard, python
from tests.micropython.test_session import Proxy

WAIT_S = 30.0
SOURCE = "def main(ctx):\n    return 42\n" + "".join(f"# line {n} of a long comment\n" for n in range(1500))


class SlowProxy(Proxy):
    """Keeps count of what goes to the board, and stops after a while."""

    sent = 0
    limit = 1 << 30

    def _pass(self, to: object, data: bytes, board: tuple[str, int] | None) -> None:
        if board is not None:
            self.sent += len(data)
            self.silent = self.sent > self.limit
        super()._pass(to, data, board)  # type: ignore[arg-type]


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[SlowProxy]:
    proxy = SlowProxy(int(cluster.urls["coap"].rpartition(":")[2]))
    yield proxy
    proxy.close()


def test_a_fetch_that_a_power_cut_interrupted_goes_on_where_it_was(
    cluster: Cluster, new_board: NewBoard, framework: Framework, proxy: SlowProxy
) -> None:
    board = new_board(master=proxy.url)
    proxy.limit = 20_000
    running = framework.submit(task(python(SOURCE)))
    part = board.data / "blobs" / (hashlib.sha256(SOURCE.encode()).hexdigest()[:16] + ".part")
    cluster.wait("half of it is there", lambda: proxy.silent and part.exists())
    board.cut_power()
    have = part.stat().st_size
    assert 10_000 < have < 20_000
    with part.open("ab") as file:
        file.write(b"half a block that was being written")
    proxy.limit, proxy.sent, proxy.silent = 1 << 30, 0, False
    board.start()
    assert running.result(WAIT_S) == b"42"
    assert proxy.sent < len(SOURCE) - have + 10_000
    assert part.with_suffix(".py").read_text() == SOURCE
    assert not part.exists()


def test_a_part_that_is_damaged_is_fetched_once_more(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = new_board(start=False)
    (board.data / "blobs").mkdir(parents=True)
    name = hashlib.sha256(SOURCE.encode()).hexdigest()[:16]
    (board.data / "blobs" / f"{name}.part").write_bytes(b"?" * 4096)
    board.start()
    assert framework.submit(task(python(SOURCE))).result(WAIT_S) == b"42"


def test_what_no_task_uses_makes_room(new_board: NewBoard, framework: Framework) -> None:
    board = new_board(blob_cache_bytes=9000)
    for n in range(6):
        source = f"def main(ctx):\n    return {n}\n" + "# comment\n" * 250
        assert framework.submit(task(python(source))).result(WAIT_S) == str(n).encode()
    files = list(Path(board.data / "blobs").iterdir())
    assert 1 <= len(files) <= 3
    assert sum(file.stat().st_size for file in files) <= 9000


def test_a_blob_larger_than_the_cache_fails_the_task_with_a_sentence(
    new_board: NewBoard, framework: Framework
) -> None:
    new_board(blob_cache_bytes=9000)
    running = framework.submit(task(python(SOURCE), reschedule=ReschedulePolicy(losses=0)))
    with pytest.raises(TaskFailed, match="larger than the cache of 9000 bytes"):
        running.result(WAIT_S)


def test_a_blob_that_is_there_is_not_fetched_again(
    new_board: NewBoard, framework: Framework, proxy: SlowProxy
) -> None:
    new_board(master=proxy.url)
    assert framework.submit(task(python(SOURCE))).result(WAIT_S) == b"42"
    before = proxy.sent
    assert framework.submit(task(python(SOURCE))).result(WAIT_S) == b"42"
    assert proxy.sent - before < 2000


def test_a_task_that_is_killed_while_its_blob_is_fetched_ends(
    cluster: Cluster, new_board: NewBoard, framework: Framework, proxy: SlowProxy
) -> None:
    new_board(master=proxy.url, block_bytes=64)
    proxy.limit = proxy.sent + 10_000
    running = framework.submit(task(python(SOURCE)))
    cluster.wait("it is being fetched", lambda: proxy.silent and running.update.reason == "fetching")
    running.kill()
    proxy.limit, proxy.silent = 1 << 30, False
    assert running.wait(WAIT_S).state.name in ("KILLED", "FINISHED")
    assert framework.submit(task(python("def main(ctx):\n    return 1\n"))).result(WAIT_S) == b"1"
