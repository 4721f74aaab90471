"""Tasks on a board under a real master: what they return, how they fail, how they are stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgerm_core.client import TaskFailed, task
from edgerm_core.client.blocking import Framework, Task, connect_framework
from edgerm_core.tasks import RestartPolicy, TaskState
from edgerm_core.testing.processes import Cluster
from tests.micropython.conftest import LEASE_S, boards_of, master_in, python

WAIT_S = 60.0


def failure(framework: Framework, source: str, **options: object) -> tuple[TaskState, str, str]:
    """Run a task that must not finish; return how it ended."""
    running = framework.submit(task(python(source), **options))  # type: ignore[arg-type]
    with pytest.raises(TaskFailed):
        running.result(WAIT_S)
    return running.update.state, running.update.reason, running.update.message


def log_of(running: Task, follow: bool = False) -> bytes:
    """Return what there is of its log."""
    return b"".join(running.logs(follow=follow))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Iterator[Cluster]:
    """One master and one board for all tests of this file: what one task does must not harm the next."""
    with master_in(tmp_path_factory.mktemp("cluster")) as cluster, boards_of(cluster, library) as new_board:
        new_board(devices={"temp0": {"driver": "simulated"}})
        yield cluster


@pytest.fixture(scope="module")
def framework(cluster: Cluster) -> Iterator[Framework]:
    with connect_framework(cluster.url, name="test") as framework:
        yield framework


def test_functions_return_values_as_other_executors_do(framework: Framework) -> None:
    for source, expected in (
        ("def main(ctx, a, b):\n    return a + b\n", b"42"),
        ("async def main(ctx, a, b):\n    return a * b / 4\n", b"20.0"),
        ("def main(ctx, a, b):\n    yield 0.01\n    return [a, b]\n", b"[40, 2]"),
        ("def main(ctx, *args):\n    return b'\\x00\\xff'\n", b"\x00\xff"),
        ("def main(ctx, *args):\n    return 'h\\xe9'\n", "hé".encode()),
        ("def main(ctx, *args):\n    return True\n", b"true"),
    ):
        assert framework.submit(task(python(source, 40, 2))).result(WAIT_S) == expected
    nothing = framework.submit(task(python("def main(ctx):\n    pass\n")))
    assert nothing.wait(WAIT_S).result is None
    assert nothing.update.exit_code == 0


def test_a_task_learns_what_it_is_and_runs_the_function_that_the_spec_names(framework: Framework) -> None:
    source = (
        "def who(ctx):\n    return [ctx.name, ctx.index, ctx.attempt, ctx.restarts, ctx.env['PERIOD']]\n"
    )
    draft = task(python(source, function="who"), name="probe", env={"PERIOD": "10"})
    assert json.loads(framework.submit(draft).result(WAIT_S)) == ["probe", 0, 1, 0, "10"]


def test_an_exception_fails_the_task_with_its_traceback_and_nothing_else(framework: Framework) -> None:
    state, reason, message = failure(
        framework, "def main(ctx):\n    inner()\ndef inner():\n    raise ValueError('x')\n"
    )
    assert (state, reason) == (TaskState.FAILED, "exception")
    assert "line 2, in main" in message
    assert message.endswith("ValueError: x")
    assert "edgerm/" not in message
    assert failure(framework, "def main(ctx)\n")[:2] == (TaskState.FAILED, "exception")
    assert failure(framework, "import nothing_of_that_name\n")[:2] == (TaskState.FAILED, "exception")
    assert failure(framework, "main = lambda ctx: 1 / 0\n")[1] == "exception"


def test_a_wrong_spec_is_an_error(framework: Framework) -> None:
    assert failure(framework, "def other(ctx):\n    pass\n")[:2] == (TaskState.ERROR, "spec-invalid")
    running = framework.submit(task(python("def main(ctx):\n    pass\n", colour="red")))
    with pytest.raises(TaskFailed, match="option colour is not known here"):
        running.result(WAIT_S)


def test_a_task_that_takes_all_memory_fails_and_the_board_goes_on(framework: Framework) -> None:
    hungry = "def main(ctx):\n    all = []\n    while True:\n        all.append(bytes(500))\n"
    assert failure(framework, hungry)[:2] == (TaskState.FAILED, "out-of-memory")
    slowly = (
        "async def main(ctx):\n    import asyncio\n    all = []\n    while True:\n"
        "        all.append(bytes(500))\n        await asyncio.sleep(0)\n"
    )
    assert failure(framework, slowly)[:2] == (TaskState.FAILED, "out-of-memory")
    assert framework.submit(task(python("def main(ctx):\n    return 1\n"))).result(WAIT_S) == b"1"


def test_exits_are_exit_codes(framework: Framework) -> None:
    running = framework.submit(task(python("import sys\ndef main(ctx):\n    sys.exit(3)\n")))
    with pytest.raises(TaskFailed):
        running.result(WAIT_S)
    assert (running.update.reason, running.update.exit_code) == ("exit-code", 3)
    assert (
        framework.submit(task(python("import sys\ndef main(ctx):\n    sys.exit()\n")))
        .wait(WAIT_S)
        .exit_code
        == 0
    )


SLEEPER = "import asyncio\nasync def main(ctx):\n    await asyncio.sleep(600)\n"
STUBBORN = (
    "import asyncio\nasync def main(ctx):\n    while True:\n"
    "        try:\n            await asyncio.sleep(600)\n"
    "        except BaseException:\n            pass\n"
)
PLAIN = "def main(ctx):\n    while not ctx.cancelled():\n        pass\n"
NAPPING = "def main(ctx):\n    ctx.sleep(600)\n"
GENERATOR = "def main(ctx):\n    while True:\n        yield 600\n"


@pytest.mark.parametrize("source", [SLEEPER, PLAIN, NAPPING, GENERATOR, STUBBORN])
def test_a_task_can_be_killed(framework: Framework, source: str) -> None:
    running = framework.submit(task(python(source), kill_grace_s=0.5))
    running.wait_running(WAIT_S)
    running.kill()
    update = running.wait(WAIT_S)
    assert (update.state, update.reason) == (TaskState.KILLED, "killed-by-request")


@pytest.mark.parametrize("source", [SLEEPER, PLAIN, NAPPING, GENERATOR, STUBBORN])
def test_a_time_limit_ends_a_task_as_failed(framework: Framework, source: str) -> None:
    limited = failure(framework, source, time_limit_s=0.3, kill_grace_s=0.3)
    assert limited[:2] == (TaskState.FAILED, "time-limit")


def test_a_task_may_use_its_grace_period_to_tidy_up(framework: Framework) -> None:
    source = (
        "import asyncio\nasync def main(ctx):\n    try:\n        await asyncio.sleep(600)\n"
        "    finally:\n        await asyncio.sleep(0.2)\n        print('tidy')\n"
    )
    running = framework.submit(task(python(source), kill_grace_s=600))
    running.wait_running(WAIT_S)
    running.kill()
    assert running.wait(WAIT_S).state is TaskState.KILLED  # It is not waited for longer than it takes.
    assert log_of(running) == b"tidy\n"


def test_a_long_plain_function_that_asks_keeps_the_board_in_touch(
    cluster: Cluster, framework: Framework
) -> None:
    source = (
        "import os\ndef main(ctx):\n    while 'enough' not in os.listdir():\n"
        "        ctx.sleep(0.1)\n    return 7\n"
    )
    running = framework.submit(task(python(source)))
    running.wait_running(WAIT_S)  # Reported while the function runs.
    time.sleep(LEASE_S + 1)  # What is waited for is that it does not run out.
    assert cluster.agent("board")["connected"] is True
    (cluster.directory / "board" / "enough").touch()
    assert running.result(WAIT_S) == b"7"


def test_a_failing_task_starts_again_in_place(framework: Framework) -> None:
    source = (
        "def main(ctx):\n    print('run', ctx.restarts)\n"
        "    if ctx.restarts < 2:\n        raise OSError(5)\n    return ctx.restarts\n"
    )
    running = framework.submit(task(python(source), restart=RestartPolicy("failure", 3, 300, 0.1)))
    assert running.result(WAIT_S) == b"2"
    assert (running.update.restarts, running.update.attempt) == (2, 1)
    assert log_of(running) == b"run 0\nrun 1\nrun 2\n"


def test_several_tasks_run_side_by_side_and_each_has_its_own_log(framework: Framework) -> None:
    source = (
        "import asyncio\nasync def main(ctx, word):\n    for n in range(3):\n        print(word, n)\n"
        "        await asyncio.sleep(0.05)\n    return word\n"
    )
    both = framework.submit_many([task(python(source, word)) for word in ("a", "b")])
    for running, word in zip(both, ("a", "b"), strict=True):
        assert running.result(WAIT_S) == word.encode()
        assert log_of(running) == b"".join(b"%s %d\n" % (word.encode(), n) for n in range(3))


def test_a_log_is_followed_as_it_grows_and_says_where_the_ring_has_dropped_something(
    framework: Framework,
) -> None:
    source = (
        "import asyncio\nasync def main(ctx):\n    for n in range(20):\n"
        "        print('%03d' % n)\n        await asyncio.sleep(0.05)\n"
    )
    running = framework.submit(task(python(source)))
    running.wait_running(WAIT_S)
    assert log_of(running, follow=True) == b"".join(b"%03d\n" % n for n in range(20))
    noisy = framework.submit(
        task(python("def main(ctx):\n    for n in range(300):\n        print('%03d' % n)\n"))
    )
    noisy.wait(WAIT_S)
    pieces = list(noisy.logs())
    assert pieces[0].offset == 1200 - 512
    assert b"".join(pieces) == b"".join(b"%03d\n" % n for n in range(300))[-512:]
    assert list(noisy.logs(stream="stderr")) == []


def test_a_task_reads_and_writes_the_devices_that_it_was_granted_and_no_others(
    framework: Framework,
) -> None:
    source = (
        "def main(ctx):\n    ctx.write('temp0', 'temperature', 100)\n"
        "    return ctx.read('temp0', 'temperature')\n"
    )
    assert (
        95 <= float(framework.submit(task(python(source), devices=["temperature"])).result(WAIT_S)) <= 105
    )
    assert "was not granted device temp0" in failure(framework, source)[2]


def test_a_task_that_has_its_own_loop_leaves_the_agents_alone(framework: Framework) -> None:
    """Programs that have a board for themselves run and renew the loop, of which MicroPython has one."""
    source = (
        "import asyncio\nasync def inner():\n    await asyncio.sleep(0.2)\n    return 7\n"
        "def main(ctx):\n    try:\n        return asyncio.run(inner())\n"
        "    finally:\n        asyncio.new_event_loop()\n"
    )
    assert framework.submit(task(python(source))).result(WAIT_S) == b"7"
    assert framework.submit(task(python("def main(ctx):\n    return 1\n"))).result(WAIT_S) == b"1"
