"""How a run ended that did not return a value, and what a value becomes."""

import io
import sys


def failed(error, failure):
    """Return what `Runs.ended` takes.

    Parameters:
        error: what was raised.
        failure: the executor's reason for a run that raised.
    """
    kind = type(error).__name__
    if kind == "MemoryError":
        forget_half_modules()
        return False, "out-of-memory", "the board has no memory left for the task"
    if kind == "SystemExit":
        code = error.value or 0
        return code == 0, "exit-code" if code else "exited", "", code
    if kind == "SpecError":
        return False, "spec-invalid", str(error), None, None, 13
    text = io.StringIO()
    sys.print_exception(error, text)
    # Where the agent called the task says nothing about the task.
    lines = [line for line in text.getvalue().split("\n") if line and "edgerm/" not in line]
    return False, failure, "\n".join(lines)


def forget_half_modules():
    """Let modules be imported again for which there was no memory when a task imported them; see `part`."""
    for name in list(sys.modules):
        if sys.modules.get(name) is None:
            sys.modules.pop(name, None)


def result(value):
    """Return a function's value as a result: as other executors do, a number as text, several as JSON."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (bool, list, tuple, dict)):
        import json

        value = json.dumps(value)
    return str(value).encode()
