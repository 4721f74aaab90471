"""What the demonstration shows."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from types import SimpleNamespace

import pytest
from edgerm_demo import display
from edgerm_demo.display import BAR, Display, bar, shares, where


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_log_gets_a_line_of_progress_each_second(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Display(plain=False)
    shown.say("hello")
    for tenths in range(25):
        clock.now = 100.0 + tenths / 10
        shown.progress(f"{tenths} of 25")
    shown.step("done")
    assert capsys.readouterr().out == "hello\n[  1.0 s] 10 of 25\n[  2.0 s] 20 of 25\n[  2.4 s] done\n"


def test_terminal_gets_one_line_that_is_redrawn(clock: Clock) -> None:
    with redirect_stdout(Terminal()) as terminal:
        shown = Display(plain=False)
        shown.progress("1 of 2")
        clock.now += 12.3
        shown.progress("2 of 2")
        shown.say("done")
        shown.say("really")
    assert terminal.getvalue() == "\r\033[K[  0.0 s] 1 of 2\r\033[K[ 12.3 s] 2 of 2\r\033[Kdone\nreally\n"


def test_plain_terminal_is_never_redrawn(clock: Clock) -> None:
    with redirect_stdout(Terminal()) as terminal:
        shown = Display(plain=True)
        clock.now += 1.0
        shown.progress("1 of 2")
    assert terminal.getvalue() == "[  1.0 s] 1 of 2\n"


@pytest.mark.parametrize(
    ("done", "total", "filled"),
    [(0, 53, 0), (1, 53, 0), (27, 53, 12), (52, 53, 23), (53, 53, 24), (0, 0, 0)],
)
def test_bar_is_full_only_when_all_is_done(done: int, total: int, filled: int) -> None:
    assert bar(done, total) == "[" + "#" * filled + "." * (BAR - filled) + "]"


def test_shares_are_percentages() -> None:
    rows = [
        {"name": "weather", "share": 0.5, "running": 3},
        {"name": "rival", "share": 0.049, "running": 0},
    ]
    assert shares(rows) == "weather  50 % (3 running)   rival   5 % (0 running)"
    assert shares([]) == ""


def test_where_counts_each_frameworks_tasks_on_each_agent() -> None:
    agents = [
        {"id": "1", "name": "gateway", "state": "READY"},
        {"id": "2", "name": "node-a", "state": "UNREACHABLE"},
    ]
    tasks = [
        {"agent_id": "1", "framework": "weather"},
        {"agent_id": "1", "framework": "weather"},
        {"agent_id": "1", "framework": "rival"},
        {"agent_id": "2", "framework": "rival"},
        {"agent_id": "gone", "framework": "rival"},
    ]
    assert where(agents, tasks) == "gateway 2+1  node-a 0+1 (unreachable)"
    assert where(agents, []) == "gateway 0  node-a 0 (unreachable)"
