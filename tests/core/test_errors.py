"""Every error is in the tree, and says one sentence."""

import inspect

import pytest

from edgerm_core import errors
from edgerm_core.errors import EdgermError

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value)]


def test_every_error_of_the_module_is_an_edgerm_error() -> None:
    assert all(issubclass(cls, EdgermError) for cls in CLASSES)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    """Four spaces of indent are one step of inheritance."""
    assert errors.__doc__ is not None
    parents: list[str] = []
    drawn: dict[str, str] = {}
    for line in errors.__doc__.split("\n\n")[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        name = line.split()[0]
        parents[depth:] = [name]
        drawn[name] = parents[depth - 1] if depth else "Exception"
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            errors.ConfigError("edgerm.toml: master.listen", "expected a list"),
            "edgerm.toml: master.listen: expected",
        ),
        (errors.PluginError("wasm", "wasmtime is missing"), "plugin wasm: wasmtime is missing"),
        (errors.RefusedError("version", "no version in common"), "no version in common"),
        (errors.TaskLost("task t3: its process is gone"), "task t3: its process is gone"),
    ],
)
def test_the_sentence_carries_the_data(error: EdgermError, text: str) -> None:
    assert str(error).startswith(text)


def test_a_lost_task_may_be_started_again_and_a_failed_start_may_not_unless_it_says_so() -> None:
    assert errors.TaskLost("x").recoverable
    assert errors.TaskLost("x").reason == "agent-restarted"
    assert not errors.ExecutorError("x").recoverable
    assert errors.ExecutorError("x").reason == "launch-failed"
