"""The agent: a state machine without I/O, and the runner around it."""
