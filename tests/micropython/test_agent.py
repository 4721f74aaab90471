"""The agent's turns when something goes wrong in them."""

from __future__ import annotations

from tests.micropython.conftest import Interpreter
from tests.micropython.test_runs import AGENT

STEPS = """
class Machine:
    resets = 0
    def reset(self):
        Machine.resets += 1

def fails_with(error):
    def step(now):
        raise error
    return step

agent.machine = Machine()
"""


def test_a_board_without_memory_stops_its_newest_task_and_then_starts_anew(
    interpreter: Interpreter,
) -> None:
    script = """
launch(17, 1)
launch(18, 1)
turn(1)
agent.session.step = fails_with(MemoryError())
for task in (18, 17):
    for _ in range(3):
        assert agent.step() == 100
        assert Machine.resets == 0
    turn()
    ends = {run.task_id: (run.unacked or run.waiting)[5] for run in agent.runs.known}
    assert ends[task] == "out-of-memory", ends
for _ in range(3):
    agent.step()
assert Machine.resets == 1
"""
    interpreter.run(AGENT + STEPS + script)


def test_a_lack_of_memory_now_and_then_is_no_reason_to_stop_anything(interpreter: Interpreter) -> None:
    script = """
launch(17, 1)
turn(1)
agent.session.step = fails_with(MemoryError())
for _ in range(9):
    agent.step()
    later(40000)
assert agent.runs.known[0].ending is None and Machine.resets == 0
"""
    interpreter.run(AGENT + STEPS + script)


def test_a_bug_in_a_turn_is_printed_and_the_tasks_go_on(interpreter: Interpreter) -> None:
    script = """
launch(17, 1)
turn(1)
agent.session.step = fails_with(KeyError("a bug"))
assert 900 <= agent.step() <= 1000
assert agent.runs.known[0].job is not None
"""
    assert "KeyError: a bug" in interpreter.run(AGENT + STEPS + script)


def test_the_newest_run_is_the_one_that_is_stopped_and_only_once(interpreter: Interpreter) -> None:
    script = """
assert agent.runs.starve() is False
launch(17, 1)
turn(1)
assert agent.runs.starve() is True and agent.runs.starve() is False
"""
    interpreter.run(AGENT + script)


def test_no_lack_of_memory_ends_the_agent(interpreter: Interpreter) -> None:
    script = """
import edgerm.agent
agent.config["sleep"] = "light"
agent.session.client.sock = object()
agent.step = lambda: NoMemory("step")() if len(failed) < 3 else 300
failed = []
class NoMemory:
    def __init__(self, name):
        self.name = name
    def __call__(self, *args):
        failed.append(self.name)
        raise MemoryError
edgerm.agent.part = NoMemory("sleep")
agent._listen = NoMemory("listen")

async def listens():
    pass

async def main():
    served = asyncio.create_task(agent.serve())
    edgerm.agent.STARVED_PAUSE_MS = 1
    for name in ("step", "listen", "sleep"):
        while name not in failed:
            assert not served.done()
            await asyncio.sleep_ms(1)
        if name == "listen":
            agent._listen = listens
    assert not served.done()

asyncio.run(main())

class Ticker:
    cancel = NoMemory("wake")

agent._ticker = Ticker()
Agent._wake(agent)
assert failed[-1] == "wake"
"""
    interpreter.run(AGENT + script)
