"""Scripts under a time limit on edgerm agents, with nothing left behind."""
