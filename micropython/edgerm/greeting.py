"""What the board says about itself when it opens a session."""

import sys

from edgerm import part


def register(agent):
    """Return Register."""
    config = agent.config
    attributes = {
        "os": "micropython",
        "arch": sys.platform,
        "board": getattr(sys.implementation, "_machine", sys.platform),
        "link.class": "constrained",
        "agent": config["name"] or agent.id,
    }
    attributes.update(config["attributes"])
    capabilities = {"logs": True, "results": True}
    executors = [
        [name, each.version, True, "", capabilities] for name, each in part("executors").table().items()
    ]
    devices = []
    slots = {}
    for device, driver in agent.devices.drivers.items():
        slots[device] = getattr(driver, "slots", 1)
        its = getattr(driver, "attributes", {})
        devices.append([device, driver.type, slots[device], its, driver.channels])
    totals = [agent.scalars, {}, {}, slots]
    info = [agent.id, config["name"], totals, attributes, devices, executors, agent.max_tasks]
    reports = [
        [run.task_id, run.attempt, run.state(), run.restarts, run.last_seq]
        for run in agent.runs.known
        if run.ending is None or run.ending[3]
    ]
    return [1, [1, 1], info, agent.boot_id, agent.boot_id, reports, config["frame_bytes"]]
