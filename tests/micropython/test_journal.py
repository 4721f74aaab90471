"""The journal on the file systems of boards, whose power is cut at every write that the flash gets."""

from __future__ import annotations

import pytest

from tests.micropython.conftest import Interpreter

LIFE = """
import os, vfs
from edgerm import cbor, part
from edgerm.journal import COMPACT_BYTES, Journal
from edgerm.runs import END, Run

TASKS = 50
KEPT = 3

class Flash:
    # Blocks that the file system writes to until the power is cut: a block is written, or it is not.
    def __init__(self, blocks):
        self.data = bytearray(blocks * 512)
        self.writes = 0
        self.cut_at = self.full = None
        self.refused = 0
    def readblocks(self, n, buf, offset=0):
        at = n * 512 + offset
        buf[:] = self.data[at : at + len(buf)]
    def writeblocks(self, n, buf, offset=0):
        if self.writes == self.cut_at:
            raise OSError(5)
        self.writes += 1
        at = n * 512 + offset
        self.data[at : at + len(buf)] = buf
    def ioctl(self, op, arg):
        return {4: len(self.data) // 512, 5: 512}.get(op, 0)

class Board:
    master_id = "m"
    session_name = "s"
    def __init__(self):
        self.runs = self
        self.known = []

def live(flash, kind):
    # Return what had been written down for sure when the power was cut.
    sure = {}
    board, journal = Board(), Journal("/f/journal")
    def write(record, task, state):
        journal.write(record, board)
        if flash.writes == flash.cut_at:
            return False
        sure[task] = state
        return True
    for task in range(1, TASKS):
        if task == 10 and flash.full:
            flash.full()
        if task == 40 and flash.full:
            flash.refused = journal.limit == 0
            os.remove("/f/filler")
        message = [8, task, 1, "f", "a-name-of-some-length", {"executor": "python", "blob": bytes(32)}]
        buf = bytearray(256)
        run = Run(bytes(buf[: cbor.put(buf, 0, message)]), message)
        board.known.append(run)
        if not write(run.raw, task, "launched"):
            break
        run.phase, run.waiting = END, [6, task, 1, 0, 10, "exited", "", 0, 0, None, bytes(40)]
        if not write(run.waiting, task, "ended"):
            break
        if len(board.known) > KEPT:
            gone = board.known.pop(0)
            journal.later.append([101, gone.task_id, 1])
        assert journal.size < COMPACT_BYTES + 200
    return sure

def found():
    states = {}
    journal = Journal("/f/journal")
    for record, raw in part("recovery").read(journal):
        if record[0] in (6, 8):
            states[record[1]] = "ended" if record[0] == 6 else "launched"
        elif record[0] == 101:
            del states[record[1]]
    return states

def format(kind):
    flash = Flash(96)
    kind.mkfs(flash)
    vfs.mount(kind(flash), "/f")
    return flash

def fill(spare):
    # Fill the flash up, but for so many bytes.
    with open("/f/spare", "wb") as file:
        file.write(bytes(spare))
    try:
        with open("/f/filler", "wb") as file:
            while True:
                file.write(bytes(64))
                file.flush()
    except OSError:
        pass
    os.remove("/f/spare")

def check_full(kind):
    refused = 0
    for spare in range(0, 4096, 256):
        flash = format(kind)
        flash.full = lambda: fill(spare)
        live(flash, kind)
        refused += flash.refused
        vfs.umount("/f")
        vfs.mount(kind(flash), "/f")
        states = found()
        vfs.umount("/f")
        for task in range(TASKS - KEPT, TASKS):
            assert states.get(task) == "ended", (spare, states)
    assert refused

def check(kind):
    flash = format(kind)
    begun = flash.writes
    assert len(live(flash, kind)) == TASKS - 1
    total = flash.writes
    assert not [name for name in os.listdir("/f") if name != "journal"]
    vfs.umount("/f")
    replaced = 0
    for cut_at in range(begun, total):
        flash = format(kind)
        flash.cut_at = cut_at
        sure = live(flash, kind)
        flash.cut_at = None
        vfs.umount("/f")
        vfs.mount(kind(flash), "/f")
        replaced += "journal" not in os.listdir("/f") and bool(sure)
        states = found()
        vfs.umount("/f")
        for task in sure:
            if task > len(sure) - KEPT or task in states:
                # One that has ended must not run again; one more than is known for sure is no harm.
                assert states.get(task) in (sure[task], "ended"), (cut_at, task, sure[task], states)
    print(total - begun, "cuts,", replaced, "when there was only the new file")
"""


@pytest.mark.parametrize("kind", ["VfsLfs2", "VfsFat"])
def test_a_power_cut_at_any_write_loses_nothing_that_was_written_down(
    interpreter: Interpreter, kind: str
) -> None:
    interpreter.run(LIFE + f"check(vfs.{kind})\n", heap="4m")


@pytest.mark.parametrize("kind", ["VfsLfs2", "VfsFat"])
def test_a_full_flash_hides_nothing_that_is_written_later(interpreter: Interpreter, kind: str) -> None:
    interpreter.run(LIFE + f"check_full(vfs.{kind})\n", heap="4m")
