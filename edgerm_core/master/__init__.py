"""The master: a state machine without I/O, and the runner around it."""
