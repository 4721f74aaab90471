"""Runs edgerm tasks as processes, limited by cgroups. Start reading in `executor.py`.

Two processes work together: `executor.py` in the agent decides, `keeper.py` beside it holds the tasks,
so that they, their exit codes and their output outlive the agent. This file imports nothing: the
keeper runs it too.
"""
