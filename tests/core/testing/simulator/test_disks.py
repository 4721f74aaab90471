"""Disks keep what they promised, in order, and no more."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.interfaces import Write
from edgerm_core.testing.simulator.disks import AgentDisk, MasterDisk


def test_a_commit_puts_and_removes() -> None:
    disk = MasterDisk()
    disk.commit([Write("task", b"2", b"b"), Write("task", b"1", b"a")])
    disk.commit([Write("task", b"2", None)])
    assert disk.load() == {"task": {b"1": b"a"}}


def test_what_was_loaded_does_not_change_with_the_disk() -> None:
    disk = MasterDisk()
    disk.commit([Write("task", b"1", b"a")])
    loaded = disk.load()
    disk.commit([Write("task", b"1", None)])
    assert loaded == {"task": {b"1": b"a"}}


def test_a_killed_process_loses_nothing_it_has_written() -> None:
    disk = AgentDisk()
    disk.append([b"1", b"2"])
    assert disk.kill() == 0
    assert disk.read() == [b"1", b"2"]


def test_a_full_disk_takes_what_waited_with_the_next_append() -> None:
    disk = AgentDisk()
    disk.refuses = True
    disk.append([b"1"])
    assert disk.read() == []
    assert disk.told() == [b"1"]
    disk.refuses = False
    disk.append([b"2"])
    assert disk.read() == [b"1", b"2"]


def test_a_process_killed_with_a_full_disk_loses_what_waited() -> None:
    disk = AgentDisk()
    disk.refuses = True
    disk.append([b"1"])
    assert disk.kill() == 1
    assert disk.read() == []


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 1 << 30))
def test_a_power_cut_leaves_what_was_synced_and_a_first_part_of_the_rest(
    synced: int, more: int, seed: int
) -> None:
    disk = AgentDisk()
    everything = [bytes([number]) for number in range(synced + more)]
    disk.append(everything[:synced])
    disk.sync()
    disk.append(everything[synced:])
    lost = disk.cut_power(random.Random(seed))
    left = disk.read()
    assert left == everything[: len(left)]
    assert len(left) >= synced
    assert lost == len(everything) - len(left)


def test_what_is_appended_while_the_journal_is_written_anew_is_in_it() -> None:
    disk = AgentDisk()
    disk.append([b"1", b"2", b"3"])
    content = disk.begin_rewrite([b"123"])
    disk.append([b"4"])
    disk.end_rewrite(content)
    assert disk.read() == [b"123", b"4"]
