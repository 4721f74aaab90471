"""Runs edgerm tasks as containers, with Docker or Podman. Start reading in `executor.py`.

Data flows one way: `options.py` and `permissions.py` check what a task asks for, `request.py` writes the
engine's order, `launcher.py` gives it, `api.py` and `streams.py` carry it, `watch.py` hears how runs fare,
`output.py` copies what they print, `exits.py` says how they ended.
"""
