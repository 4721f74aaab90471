"""The gateway: an agent that stands in for constrained devices, over the one session that it has anyway.

state.py      the state machine: told events, answers with effects
standin.py    what it knows of one device
uplink.py     the channels to the master
mailbox.py    what waits for a device until it asks
custody.py    status updates it has acknowledged and the master has not, on its disk
invariants.py what holds after every event, for tests
runner.py     the I/O around it; link.py that of one device
"""
