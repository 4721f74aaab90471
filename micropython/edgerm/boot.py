"""Makes the parts of an agent, once."""

import gc
import os
from binascii import hexlify

from edgerm import part
from edgerm.coap import Client
from edgerm.devices import Devices
from edgerm.journal import Journal
from edgerm.runs import Runs
from edgerm.session import Session

COLLECT_BYTES = 4096
"""Allocated between two collections; two or three heartbeats."""

TASK_BYTES = 8192
"""One task for so much free memory, unless the config says otherwise."""


def set_up(agent, config, machine):
    """Make what the agent is made of, and go on with the tasks that its journal knows."""
    # Collecting often keeps the free memory in one piece: there must always be room for a whole datagram.
    gc.threshold(COLLECT_BYTES)
    agent.watchdog = machine.WDT(timeout=config["watchdog_s"] * 1000) if config["watchdog_s"] else None
    for directory in (config["dir"], config["dir"] + "/blobs"):
        try:
            os.mkdir(directory)
        except OSError:
            pass  # It is there; if it is not, the first file in it says so.
    agent.id = config["id"] or part("identity").own_id(config["dir"], machine)
    agent.boot_id = hexlify(os.urandom(4)).decode()
    agent.master_id = agent.session_name = ""
    agent.devices = Devices(config["devices"])
    agent.journal = Journal(config["dir"] + "/journal")
    room = config["frame_bytes"] - 96
    agent.runs = Runs(agent, room * 2 // 5, room * 3 // 5)
    part("recovery").recover(agent)
    client = Client(
        config["frame_bytes"], config["block_bytes"], max(2000, int(config["datagram_s"] * 1500))
    )
    agent.session = Session(client, config, agent, agent.session_name)
    if config["sleep"] == "deep":
        part("sleep").wake_up(agent)
    gc.collect()
    agent.max_tasks = config["max_tasks"] or max(1, gc.mem_free() // TASK_BYTES)
    agent.scalars = {"cpus": 1000, "mem": max(1, gc.mem_free() * 1000 >> 20)}
