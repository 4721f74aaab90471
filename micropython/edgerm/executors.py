"""What this board can run: one class for each executor, in a table that a firmware can add to.

An executor has `version`, `failure` (the reason of a run that raised), and `load(path, implementation,
context)`, which returns a function and its arguments, or raises SpecError. Calling the function gives the
result, or a generator or coroutine that ends with it.
"""

import os
import sys

MODULE = "edgerm_task"


class SpecError(Exception):
    """The spec is wrong: the task becomes ERROR."""


class Python:
    """`python`: a function of a module, `.py` or `.mpy`."""

    version = "micropython %d.%d.%d" % sys.implementation[1][:3]
    failure = "exception"

    def load(self, path, implementation, context):
        """See the top of this file."""
        options = check(path, implementation, ("function",))
        directory, file = path.rsplit("/", 1)
        # The interpreter keeps the name and the path of what it has imported for ever: here they are
        # always the same. Imported and not read and compiled, so that the source is never in memory as a
        # whole.
        same = directory + "/" + MODULE + file[file.index(".") :]
        os.rename(path, same)
        sys.path.insert(0, directory)
        try:
            module = __import__(MODULE)
        finally:
            sys.path.remove(directory)
            os.rename(same, path)
            # Each run has a module of its own, and gives it back when it ends.
            sys.modules.pop(MODULE, None)
        name = options.get("function", "main")
        if not hasattr(module, name):
            raise SpecError("the module has no function %s" % name)
        return getattr(module, name), (context,) + tuple(implementation.get("args", ()))


class Wasm:
    """`wasm`: by a user module of the firmware, see docs/micropython.md.

    Parameters:
        module: has `VERSION` and `run(path, function, args, context)`.
    """

    failure = "trap"

    def __init__(self, module):
        self.version = module.VERSION
        self._run = module.run

    def load(self, path, implementation, context):
        """See the top of this file."""
        options = check(path, implementation, ("function", "abi", "input"))
        if not options.get("function"):
            raise SpecError("wasm options: a board runs functions only; name one with function")
        args = tuple(implementation.get("args", ()))
        if options.get("abi") == "bytes":
            args = (options.get("input", b""),)
        return self._run, (path, options["function"], args, context)


def check(path, implementation, known):
    """Check what all executors here have in common, and return the options.

    Raises:
        SpecError: if there is no module, or an option that is not known.
    """
    if path is None:
        raise SpecError("the implementation names no blob to run")
    options = implementation.get("options", {})
    for option in options:
        if option not in known:
            raise SpecError("option %s is not known here; known: %s" % (option, ", ".join(known)))
    return options


def table():
    """Return the executors of this board by name."""
    executors = {"python": Python()}
    try:
        executors["wasm"] = Wasm(__import__("edgerm_wasm"))
    except ImportError:
        pass
    return executors
