"""After a start: what the journal says, and what becomes of the tasks that were here."""

import os
import struct
from binascii import crc32

from edgerm import cbor
from edgerm.runs import END, FAILED, KILLED, Run


def read(journal):
    """Yield every record and its bytes, up to the first damaged one."""
    journal.size = 0
    try:
        os.stat(journal.path)
    except OSError:
        try:
            # FAT cannot replace a file in one step: a power cut may have come between the two.
            os.rename(journal.path + ".new", journal.path)
        except OSError:
            return
    file = open(journal.path, "rb")
    with file:
        while True:
            head = file.read(6)
            if not head:
                return
            n, check = struct.unpack(">HI", head) if len(head) == 6 else (1, 0)
            raw = file.read(n)
            if len(raw) < n or crc32(raw) != check:
                # What is appended behind a damaged record would never be read: the next write begins anew.
                journal.limit = 0
                return
            journal.size += 6 + n
            yield cbor.Reader(raw).read(), raw


def recover(agent):
    """Put the agent where its journal says, and go on with its tasks, master or no master."""
    known = agent.runs.known
    for record, raw in read(agent.journal):
        kind = record[0]
        if kind == 102:
            agent.master_id = record[1]
        elif kind == 103:
            agent.session_name = record[1]
        elif kind == 8:
            known.append(Run(raw, record))
        else:
            for run in known[:]:
                if run.task_id == record[1] and run.attempt == record[2]:
                    if kind == 6:
                        run.phase = END
                        run.waiting = record
                    elif kind == 100:
                        run.restarts = record[3]
                        run.count = tuple(record[4:7])
                    else:
                        known.remove(run)
    for run in known[:]:
        # Nothing of what ran is alive; some of it starts again.
        if run.phase == END:
            continue
        message = "the board was restarted while the task was here"
        if run.attempt < agent.runs.newest(run.task_id):
            agent.runs.finish(run, KILLED, "replaced")
        elif not agent.runs.restart(run, False, message, True):
            agent.runs.finish(run, FAILED, "agent-restarted", message)
    agent.runs.left()


def compact(journal, agent):
    """Write the journal anew with what still matters."""
    new = journal.path + ".new"
    journal.size = 0
    journal.later.clear()
    with open(new, "wb") as file:
        journal.append(file, [102, agent.master_id])
        journal.append(file, [103, agent.session_name])
        for run in agent.runs.known:
            journal.append(file, run.raw)
            if run.restarts:
                journal.append(file, run.changed())
            if run.phase == END:
                journal.append(file, run.waiting or run.unacked)
    os.rename(new, journal.path)
