"""Modules that are imported when there is no memory, and again when there is."""

from __future__ import annotations

import pytest

from tests.micropython.conftest import Interpreter

WITHOUT_MEMORY = """
import micropython
import sys

import edgerm

with open("spare.py", "w") as file:
    file.write("value = 1\\n")

def starve(name):
    getattr(edgerm, name, None)  # The name itself is there.
    micropython.heap_lock()
    try:
        __import__(name, None, None, ("*",))
    except MemoryError:
        pass
    finally:
        micropython.heap_unlock()
    assert name in sys.modules and sys.modules.get(name) is None, "nothing is left of it"

"""
"""The interpreter's import leaves an entry without a value then."""


@pytest.mark.parametrize(
    "script",
    [
        'starve("edgerm.outcome")\nassert edgerm.part("outcome").result(1) == b"1"\n',
        'starve("spare")\n'
        'end = edgerm.part("outcome").failed(MemoryError(), "")\n'
        'assert end[:2] == (False, "out-of-memory")\n'
        "import spare\nassert spare.value == 1\n",
    ],
    ids=["a part of the agent", "a module of a task"],
)
def test_an_import_for_which_there_was_no_memory_can_be_done_later(
    interpreter: Interpreter, script: str
) -> None:
    """It crashed the board."""
    interpreter.run(WITHOUT_MEMORY + script)
