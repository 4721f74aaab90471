"""Refusals keep the engine's own sentence, and add what a person can do."""

from __future__ import annotations

import pytest
from edgerm_executor_docker.start_errors import MAX_MESSAGE, lacks_init, refusal_error

from edgerm_core.tasks import Reason


@pytest.mark.parametrize(
    ("message", "hint", "recoverable"),
    [
        ("No command specified", "give args", False),
        ('exec: "x": executable file not found in $PATH: unknown', "check args", False),
        ("Bind for 0.0.0.0:80 failed: port is already allocated", "another program", True),
        ("rootlessport listen tcp 0.0.0.0:80: bind: address already in use", "another program", True),
        ('Conflict. The container name "/x" is already in use by container "y"', "somebody else", False),
        ("mkdir /x: no space left on device", "disk is full", True),
        ("exec /bin/x: exec format error: unknown", "another kind of machine", False),
        ("something new", "", False),
    ],
)
def test_refusals(message: str, hint: str, recoverable: bool) -> None:
    error = refusal_error(message)
    assert message in str(error)
    assert hint in str(error)
    assert error.recoverable is recoverable
    assert error.reason == Reason.LAUNCH_FAILED


def test_long_refusals_are_cut_to_one_line() -> None:
    text = str(refusal_error("word\n" * 10_000))
    assert "\n" not in text
    assert len(text) < MAX_MESSAGE + 100


def test_missing_init_is_recognised_on_both_engines() -> None:
    assert lacks_init('exec: "docker-init": executable file not found in $PATH')
    assert lacks_init("container-init binary not found on the host: stat /usr/libexec/podman/catatonit")
    assert not lacks_init('exec: "my-init": executable file not found in $PATH')
