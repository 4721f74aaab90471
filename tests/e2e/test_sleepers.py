"""A device that sleeps for a minute between two polls, and cannot be reached meanwhile, gets its tasks.

The daemons and the minutes are real; the radio is a relay that this file plays. Nothing may get lost and
nothing may start twice, which a file tells that every start appends to.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgerm_core.testing.processes import Cluster, ending, free_port

pytestmark = pytest.mark.timeout(600)

SLEEP_S = 60.0

AWAKE_S = 5.0
"""The device listens for so long after each datagram that it has sent, then it turns its radio off."""

ASLEEP_S = 20.0
"""A device that has been silent for so long has nothing to repeat, and is silent until its next poll."""

TASKS = 3
"""Submitted at once, each time."""

WAIT_S = 5 * SLEEP_S

MASTER_CONFIG = f"""\
[master]
heartbeat_s = 1.0
heartbeat_constrained_s = {SLEEP_S}
lease_grace_s = 5.0
"""

SLEEPER_CONFIG = f"""\
[transport.coap]
observe = false
round_trip_s = {SLEEP_S}
max_message_bytes = 1024
"""


class Radio(threading.Thread):
    """Relays datagrams between one device and its master; what comes while the device sleeps is lost.

    Parameters:
        master: the port where it listens, or will.

    Attributes:
        port: where the device sends to.
        sent_at: when the device has sent something, by the monotonic clock.
    """

    def __init__(self, master: int) -> None:
        super().__init__(daemon=True)
        self.master = master
        self._near = socket.socket(type=socket.SOCK_DGRAM)
        self._near.bind(("127.0.0.1", 0))
        self._far = socket.socket(type=socket.SOCK_DGRAM)
        self._far.connect(("127.0.0.1", master))
        self._wake, self._woken = socket.socketpair()
        self._device: tuple[str, int] | None = None
        self.port = int(self._near.getsockname()[1])
        self.sent_at: list[float] = []

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for end in (self._near, self._far, self._woken):
                selector.register(end, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._woken in ready:
                    return
                if self._near in ready:
                    data, self._device = self._near.recvfrom(65536)
                    self.sent_at.append(time.monotonic())
                    self._far.send(data)
                if self._far in ready:
                    data = self._far.recv(65536)
                    if self._device is not None and not self.off():
                        self._near.sendto(data, self._device)

    def off(self) -> bool:
        """Return whether the device has been silent for so long that it does not listen any more."""
        return self.silent_for(AWAKE_S)

    def asleep(self) -> bool:
        """Return whether the device will be silent until its next poll."""
        return self.silent_for(ASLEEP_S)

    def silent_for(self, seconds: float) -> bool:
        """Return whether the device has sent nothing for longer than that."""
        return bool(self.sent_at) and time.monotonic() - self.sent_at[-1] > seconds

    def slept_s(self, since: float) -> float:
        """Return the longest silence of the device that ended after `since`."""
        ends = zip(self.sent_at, self.sent_at[1:], strict=False)
        return max((end - begin for begin, end in ends if end > since), default=0.0)

    def stop(self) -> None:
        """Relay nothing more."""
        self._wake.send(b"\0")
        self.join()
        for end in (self._near, self._far, self._wake, self._woken):
            end.close()


@pytest.fixture
def radio() -> Iterator[Radio]:
    radio = Radio(free_port(socket.SOCK_DGRAM))
    radio.start()
    yield radio
    radio.stop()


@pytest.fixture
def cluster(tmp_path: Path, radio: Radio) -> Iterator[Cluster]:
    """A master, and a device that has gone to sleep."""
    with ending(Cluster(tmp_path, MASTER_CONFIG)) as cluster:
        cluster.urls["coap"] = f"coap://127.0.0.1:{radio.master}"
        cluster.start_master()
        cluster.config = tmp_path / "sleeper.toml"
        cluster.config.write_text(SLEEPER_CONFIG)
        constrained = ("--attribute", "link.class=constrained")
        cluster.start_agent("sleeper", *constrained, url=f"coap://127.0.0.1:{radio.port}")
        yield cluster


def submit(cluster: Cluster, name: str) -> None:
    """Start TASKS tasks, each of which notes that it has started."""
    cluster.edgerm(
        *("run", "--detach", "--name", name, "--count", str(TASKS), "--cpus", "0.01", "--mem", "1"),
        *("--process", "--", "sh", "-c", f"echo {name}-$EDGERM_TASK_ID >> {cluster.directory}/starts"),
    )


def check(cluster: Cluster, name: str) -> None:
    """Wait until the tasks of that name have finished: all of them, each in its first attempt and start."""

    def rows() -> list[dict[str, Any]]:
        return [row for row in cluster.tasks() if row["name"].startswith(name)]

    def finished() -> bool:
        return [row["state"] for row in rows()] == ["FINISHED"] * TASKS

    cluster.wait(f"{name}: all tasks have finished", finished, WAIT_S)
    assert [row["attempt"] for row in rows()] == [1] * TASKS
    lines = [line for line in (cluster.directory / "starts").read_text().split() if line.startswith(name)]
    assert len(lines) == len(set(lines)) == TASKS, lines


def test_a_device_that_sleeps_for_a_minute_gets_runs_and_reports_its_tasks(
    cluster: Cluster, radio: Radio
) -> None:
    for name in ("first", "second"):
        cluster.wait("the device sleeps", radio.asleep, WAIT_S)
        began = time.monotonic()
        submit(cluster, name)
        check(cluster, name)
        slept_s = radio.slept_s(began)
        print(f"{name}: finished {time.monotonic() - began:.1f} s after submitting, slept {slept_s:.1f} s")
        assert slept_s >= SLEEP_S * 0.9
    assert cluster.agent("sleeper")["connected"] is True
    assert cluster.log("sleeper").count("registered with") == 1, "the session goes on through all sleeps"


def test_a_master_that_was_killed_while_the_device_slept_is_found_when_it_wakes(
    cluster: Cluster, radio: Radio
) -> None:
    cluster.wait("the device sleeps", radio.asleep, WAIT_S)
    sent = len(radio.sent_at)
    submit(cluster, "before")
    cluster.kill("master")
    cluster.start_master()
    # All that may have taken until it woke.
    assert not (cluster.directory / "starts").exists() or len(radio.sent_at) > sent
    check(cluster, "before")
