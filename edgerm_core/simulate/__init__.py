"""Trying a cluster and its policies out before there are machines: `edgerm simulate`.

A thin layer over `edgerm_core.testing.simulator`, whose virtual time, network, disks and nodes it uses:
the master's and the agents' machines, the codec and the scheduler are the real ones.

    scenario      the two files, as typed data
    links         ways to the master that have a bandwidth and count bytes
    agents        agents whose runs do what the workload file says
    experiment    the cluster put together, run in virtual time, looked at now and then
    meters        shares and tasks over time
    report        the figures of it, as plain values and as tables
    plot          the figures as drawings
"""
