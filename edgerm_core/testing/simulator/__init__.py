"""A whole cluster in one process, in virtual time, out of one number.

The real state machines of master and agent, the real codec and a real scheduler; around them a simulated
network, disks, executors and clocks that fail in every way their real counterparts may. The same seed
gives the same story, byte for byte. `docs/simulator.md` says how to run it and how to read what it finds.

    plan          what will happen, drawn from the seed as plain data
    cluster       makes the nodes and lets the plan happen to them
    world         virtual time, the streams of luck, the story
    *_node        the shells around the machines, as the runners are around the real ones
    checks        what must hold after every event; `settled` what must hold in the end
    shrink, run   the shortest plan that still fails, and the command line
"""
