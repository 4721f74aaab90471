"""Orders and updates: the rules of docs/protocol/README.md, one by one, on an agent without a network."""

from __future__ import annotations

import pytest

from tests.micropython.conftest import Interpreter

AGENT = """
import asyncio, gc
import edgerm
from edgerm import cbor, part
from edgerm.agent import Agent

agent = None

# The clock stands still but for `later`: what is due does not depend on how long a step takes.
edgerm.ticks_ms = lambda: edgerm._last

def boot(**more):
    global agent
    config = dict(part("config").DEFAULTS)
    config.update(dir="data", name="n", master=("127.0.0.1", 9), **more)
    agent = Agent(config)
    agent._wake = lambda: None
    return agent

def launch(task, attempt, source="def main(ctx):\\n    yield 60\\n", *more, name="t", args=()):
    import hashlib
    blob = hashlib.sha256(source.encode()).digest()
    with open("data/blobs/%s.py" % part("blob_cache").name(blob), "w") as file:
        file.write(source)
    implementation = {"executor": "python", "blob": blob, "args": list(args)}
    message = [8, task, attempt, "f", name, implementation]
    message.extend(more)
    order(message)

def order(message):
    buf = bytearray(1024)
    agent.take(message, bytes(buf[: cbor.put(buf, 0, message)]))
    agent.runs.due(agent.now)

def said(at=None):
    buf = bytearray(1024)
    end = agent.say(buf, 0, agent.now if at is None else at)
    reader = cbor.Reader(bytes(buf[:end]))
    messages = []
    while reader.at < end:
        messages.append(reader.read())
    return messages

def later(ms):
    # Time passes: the agent's clock is moved, nobody waits.
    edgerm._now += ms
    agent.now = edgerm.now()
    agent.runs.due(agent.now)

def over():
    while agent._over:
        run, outcome = agent._over.pop(0)
        agent.runs.ended(run, *outcome)

def turn(n=8):
    async def some():
        for _ in range(n):
            over()
            agent.runs.due(agent.now)
            await asyncio.sleep_ms(0)
        over()
    asyncio.run(some())

def acknowledge(task, attempt, seq):
    agent.take([7, task, attempt, seq], b"")

boot()
agent.runs.came()
"""


def check(interpreter: Interpreter, script: str) -> None:
    interpreter.run(AGENT + script)


def test_an_attempt_is_reported_with_numbers_without_gaps_and_once_at_a_time(
    interpreter: Interpreter,
) -> None:
    check(
        interpreter,
        """
launch(17, 1, "def main(ctx):\\n    return 42\\n")
assert said() == [[6, 17, 1, 1, 4, "started"]]
turn()
assert said() == []  # Number 1 is still under way.
acknowledge(17, 1, 1)
assert said() == [[6, 17, 1, 2, 10, "exited", "", 0, 0, None, b"42"]]
assert agent.runs.known
acknowledge(17, 1, 2)
assert not agent.runs.known
""",
    )


def test_an_update_that_was_not_sent_yet_is_replaced_by_the_next_one(interpreter: Interpreter) -> None:
    check(
        interpreter,
        """
launch(17, 1, "def main(ctx):\\n    pass\\n")
turn()
assert said() == [[6, 17, 1, 1, 10, "exited", "", 0, 0]]
""",
    )


def test_what_is_not_acknowledged_is_said_again_with_growing_pauses_unchanged(
    interpreter: Interpreter,
) -> None:
    check(
        interpreter,
        """
launch(17, 1)
first = said()
assert said() == []
for pause in (10000, 20000, 40000):
    later(pause - 100)
    assert said() == []
    later(100)
    assert said() == first
agent.left()
agent.runs.came()
assert said() == first  # After a reconnect at once.
""",
    )


def test_a_launch_of_a_known_attempt_changes_nothing(interpreter: Interpreter) -> None:
    check(
        interpreter,
        """
launch(17, 1)
said()
launch(17, 1)
assert len(agent.runs.known) == 1 and said() == []
""",
    )


def test_a_launch_that_comes_again_before_anything_was_reported_is_answered_with_starting(
    interpreter: Interpreter,
) -> None:
    check(
        interpreter,
        """
launch(17, 1)
agent.runs.known[0].waiting = None  # As if it took long to start.
launch(17, 1)
assert said() == [[6, 17, 1, 1, 3, "starting"]]
""",
    )


def test_a_launch_of_an_older_attempt_is_ignored(interpreter: Interpreter) -> None:
    check(
        interpreter,
        """
launch(17, 2)
said()
launch(17, 1)
assert [run.attempt for run in agent.runs.known] == [2] and said() == []
""",
    )


def test_a_launch_of_a_newer_attempt_first_ends_the_older_one(interpreter: Interpreter) -> None:
    check(
        interpreter,
        """
launch(17, 1)
turn(1)
said()
launch(17, 2)
assert [each.job is None for each in agent.runs.known] == [False, True]
turn()
assert agent.runs.known[1].job is not None
acknowledge(17, 1, 1)
messages = said()
assert [17, 1, 2, 12, "replaced"] == messages[0][1:6] and [17, 2, 1, 4] == messages[1][1:5], messages
""",
    )


def test_a_kill_is_confirmed_and_ends_the_attempt_and_all_older_ones(interpreter: Interpreter) -> None:
    check(
        interpreter,
        """
launch(17, 1)
turn(1)
said()
acknowledge(17, 1, 1)
agent.take([9, 17, 1, 0.5, "kill-requested"], b"")
assert said()[0][1:6] == [17, 1, 2, 5, "kill-requested"]
agent.take([9, 17, 1, 0.5, "kill-requested"], b"")
acknowledge(17, 1, 2)
turn()
assert said()[0][1:6] == [17, 1, 3, 12, "kill-requested"]
""",
    )


def test_a_kill_of_an_unknown_task_is_answered_and_its_launch_is_then_ignored(
    interpreter: Interpreter,
) -> None:
    check(
        interpreter,
        """
agent.take([9, 17, 3], b"")
killed = [[6, 17, 3, 1, 12, "killed-by-request"]]
assert said() == killed
launch(17, 3)
assert not agent.runs.known and said() == killed
launch(17, 2)
assert not agent.runs.known and said() == []
launch(17, 4)
assert len(agent.runs.known) == 1
""",
    )


def test_after_the_end_orders_of_the_same_attempt_are_answered_with_the_last_update(
    interpreter: Interpreter,
) -> None:
    check(
        interpreter,
        """
launch(17, 1, "def main(ctx):\\n    return 42\\n")
turn()
said()
acknowledge(17, 1, 1)
assert not agent.runs.known
launch(17, 1)
assert said() == [[6, 17, 1, 1, 10, "exited"]] and not agent.runs.known
agent.take([9, 17, 1], b"")
assert said() == [[6, 17, 1, 1, 10, "exited"]]
""",
    )


def test_orders_that_the_board_cannot_carry_out_say_why(interpreter: Interpreter) -> None:
    check(
        interpreter,
        """
def refused(*message):
    order([8] + list(message))
    update = said()[0]
    acknowledge(update[1], update[2], update[3])
    return update[4], update[5]
python = {"executor": "python", "blob": b"x" * 32}
assert refused(1, 1, "f", "n", {"executor": "process"}) == (14, "executor-unavailable")
assert refused(2, 1, "f", "n", python, [{"mem": 10**9}]) == (14, "resources-unavailable")
assert refused(3, 1, "f", "n", python, [{}, {}, {}, {"cam0": 1}]) == (14, "resources-unavailable")
assert refused(4, 1, "f", "n", python, [], {}, [{"path": "a", "blob": b"y" * 32}]) == (13, "spec-invalid")
agent.max_tasks = 1
launch(5, 1)
said()
assert refused(6, 1, "f", "n", python) == (14, "resources-unavailable")
""",
    )


@pytest.mark.parametrize(("on", "ends"), [("never", 1), ("failure", 3), ("always", 7)])
def test_a_failing_task_starts_again_as_often_as_its_policy_says(
    interpreter: Interpreter, on: str, ends: int
) -> None:
    check(
        interpreter,
        f"""
policy = {{"on": "{on}", "attempts": 2, "delay_s": 1, "max_delay_s": 4}}
launch(17, 1, "def main(ctx):\\n    raise ValueError(ctx.restarts)\\n", [], {{}}, [], [], policy)
run = agent.runs.known[0]
for n in range({ends}):
    assert run.job is not None and run.restarts == n, n
    turn()
    assert run.job is None
    waited = 0
    while run.job is None and run.phase != 5:
        later(500)
        waited += 500
    assert waited == (min(1000 << n, 4000) if n < {ends} - 1 or run.phase != 5 else 0), waited
assert (run.phase == 5) == ("{on}" != "always")
""",
    )


def test_a_time_limit_ends_a_run_as_failed(interpreter: Interpreter) -> None:
    check(
        interpreter,
        """
launch(17, 1, "def main(ctx):\\n    yield 60\\n", [], {}, [], [], {}, None, 2.5)
turn(1)
later(2400)
turn()
assert agent.runs.known[0].job is not None
later(200)
turn()
assert said()[0][4:7] == [11, "time-limit", "ran longer than its limit of 2.5 s"]
""",
    )


def test_a_task_that_must_not_be_alone_for_long_ends_when_the_master_has_been_away(
    interpreter: Interpreter,
) -> None:
    check(
        interpreter,
        """
launch(17, 1, "def main(ctx):\\n    yield 60\\n", [], {}, [], [], {}, 30)
turn(1)
agent.left()
later(29000)
turn()
assert agent.runs.known[0].job is not None
agent.runs.came()
later(5000)
agent.left()
later(31000)
turn()
agent.runs.came()
assert said()[0][4:6] == [11, "stopped-while-disconnected"]
""",
    )


LIMITED = """
launch(17, 1, "def main(ctx):\\n    yield 60\\n", [], {}, [], [], {}, 30)
turn(1)
def away(s):
    agent.take([4] if s is None else [4, 0.0, 0.0, s], b"")
def stopped():
    turn()
    return agent.runs.known[0].job is None
"""


def test_behind_a_gateway_that_is_cut_off_the_time_counts_from_its_last_word_with_the_master(
    interpreter: Interpreter,
) -> None:
    """To such a task the gateway was a master, and it went on for ever."""
    script = """
away(10.0)
later(10000)
away(20.0)
later(9000)
assert not stopped()
later(2000)
away(31.0)
assert stopped()
assert said()[0][4:6] == [11, "stopped-while-disconnected"]
end = agent.runs.known[0].unacked
away(60.0)
later(9000)
assert agent.runs.known[0].unacked is end and said() == []
"""
    check(interpreter, LIMITED + script)


def test_a_gateway_that_reaches_its_master_again_keeps_it(interpreter: Interpreter) -> None:
    check(interpreter, LIMITED + "away(29.0)\naway(None)\nlater(60000)\nassert not stopped()\n")


def test_a_gateway_says_with_the_registration_that_it_is_cut_off_and_a_count_that_has_begun_goes_on(
    interpreter: Interpreter,
) -> None:
    script = """
agent.left()
later(20000)
agent.take([2, 1, 60.0, 185.0, agent.master_id, 1.0], b"")
later(9000)
assert not stopped()
later(2000)
assert stopped()
"""
    check(interpreter, LIMITED + script)


def test_without_acknowledgements_further_orders_are_put_off(interpreter: Interpreter) -> None:
    check(
        interpreter,
        """
for task in range(1, 20):
    order([8, task, 1, "f", "n", {"executor": "process"}])
assert len(agent.runs.known) == 16
""",
    )


def test_updates_that_do_not_fit_into_a_frame_come_with_the_next_one(interpreter: Interpreter) -> None:
    check(
        interpreter,
        """
for task in range(1, 15):
    order([8, task, 1, "f", "n" * 60, {"executor": "no-such-executor-" + "x" * 100}])
frames = []
while not frames or frames[-1]:
    frames.append(said())
assert len(frames) > 2 and sum([len(frame) for frame in frames]) == 14
""",
    )


def test_texts_are_cut_to_whole_characters_and_long_results_are_dropped_with_a_word(
    interpreter: Interpreter,
) -> None:
    check(
        interpreter,
        """
from edgerm.runs import cut
assert cut("aé", 3) == "aé" and cut("aé", 2) == "a" and cut("", 2) == ""
launch(17, 1, "def main(ctx):\\n    return b'x' * 2000\\n")
turn()
update = said()[0]
assert update[4] == 10 and len(update) == 9, update
assert update[6].startswith("result dropped: 2000 bytes, the limit is "), update
""",
    )


def test_other_books_and_a_removal_stop_everything_without_a_word(interpreter: Interpreter) -> None:
    check(
        interpreter,
        """
agent.master_id = "m-1"
for cause in ([2, 1, 10, 35, "m-2"], [52, "removed", ""]):
    launch(17, 1)
    turn(1)
    said()
    agent.take(cause, b"")
    turn()
    assert not agent.runs.known and said() == [], cause
""",
    )
