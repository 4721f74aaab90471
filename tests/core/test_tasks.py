"""What a task spec may say. Each wrong field is refused by a sentence that names it."""

import math
from typing import Any

import msgspec
import pytest

from edgerm_core import limits
from edgerm_core.attributes import Constraint, Preference
from edgerm_core.codec import decode_batch, encode
from edgerm_core.errors import SpecError
from edgerm_core.ids import BlobId, blob_id
from edgerm_core.messages import Submit
from edgerm_core.tasks import (
    MAX_ARGS_BYTES,
    MAX_CONSTRAINTS,
    MAX_ENV_BYTES,
    MAX_FILES,
    MAX_IMPLEMENTATIONS,
    MAX_WEIGHT,
    DisconnectPolicy,
    File,
    Implementation,
    ReschedulePolicy,
    RestartPolicy,
    TaskSpec,
    Volume,
    check_relative_path,
    check_spec,
)
from edgerm_core.values import MAX_DURATION_S

RUN = Implementation("process", args=("true",))
GOOD = TaskSpec("a", (RUN,))
BLOB = blob_id(b"x")
FACT = Constraint("os", "==", "linux")


def changed(**fields: Any) -> TaskSpec:
    """Return the good spec with some fields replaced."""
    return msgspec.structs.replace(GOOD, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"instances": limits.MAX_SUBMIT_TASKS},
        {"time_limit_s": 0.0},
        {"time_limit_s": MAX_DURATION_S},
        {"implementations": (RUN,) * MAX_IMPLEMENTATIONS},
        {"files": (File("a/b.txt", BLOB),)},
        {"volumes": (Volume("/data", "series"), Volume("tmp"))},
        {"env": {"A": "", "B": "x=y"}},
        {"preferences": (Preference(FACT, -5.0),)},
        {"restart": RestartPolicy("always", attempts=0)},
    ],
)
def test_a_sensible_spec_passes(fields: dict[str, Any]) -> None:
    check_spec(changed(**fields))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": ""}, "task name"),
        ({"name": "a b"}, "task name"),
        ({"name": "x" * 65}, "task name"),
        ({"implementations": ()}, "implementations"),
        ({"implementations": (RUN,) * (MAX_IMPLEMENTATIONS + 1)}, "implementations"),
        ({"implementations": (Implementation("no such/name"),)}, "executor"),
        ({"implementations": (Implementation("p", args=("x" * (MAX_ARGS_BYTES + 1),)),)}, "arguments"),
        ({"implementations": (Implementation("p", blob=BlobId(b"short")),)}, "SHA-256"),
        ({"files": (File("a", BlobId(b"")),)}, "SHA-256"),
        ({"files": (File("../a", BLOB),)}, "file"),
        ({"files": (File("/etc/passwd", BLOB),)}, "file"),
        ({"files": (File("", BLOB),)}, "file"),
        ({"files": (File("a", BLOB),) * (MAX_FILES + 1)}, "files"),
        ({"volumes": (Volume("a"),) * (MAX_FILES + 1)}, "volumes"),
        ({"volumes": (Volume("/a/../../b"),)}, "volume path"),
        ({"volumes": (Volume("a", "no such/name"),)}, "volume"),
        ({"env": {"": "x"}}, "environment variable"),
        ({"env": {"A=B": "x"}}, "environment variable"),
        ({"env": {"A": "x\0y"}}, "environment variable"),
        ({"env": {"A": "x" * MAX_ENV_BYTES}}, "environment exceeds"),
        ({"constraints": (FACT,) * (MAX_CONSTRAINTS + 1)}, "constraints"),
        ({"preferences": (Preference(FACT, math.nan),)}, "preferences"),
        ({"preferences": (Preference(FACT, math.inf),)}, "preferences"),
        ({"preferences": (Preference(FACT, MAX_WEIGHT + 1.0),)}, "preferences"),
        ({"instances": 0}, "instances"),
        ({"instances": -1}, "instances"),
        ({"instances": limits.MAX_SUBMIT_TASKS + 1}, "instances"),
        ({"time_limit_s": -1.0}, "time_limit_s"),
        ({"time_limit_s": math.nan}, "time_limit_s"),
        ({"kill_grace_s": math.inf}, "kill_grace_s"),
        ({"restart": RestartPolicy(delay_s=-1.0)}, "restart.delay_s"),
        ({"restart": RestartPolicy(max_delay_s=math.nan)}, "restart.max_delay_s"),
        ({"restart": RestartPolicy(interval_s=-0.1)}, "restart.interval_s"),
        ({"restart": RestartPolicy(attempts=-1)}, "restart.attempts"),
        ({"reschedule": ReschedulePolicy(delay_s=math.inf)}, "reschedule.delay_s"),
        ({"reschedule": ReschedulePolicy(max_delay_s=-1.0)}, "reschedule.max_delay_s"),
        ({"reschedule": ReschedulePolicy(failures=-1)}, "reschedule.failures"),
        ({"reschedule": ReschedulePolicy(losses=1_000_001)}, "reschedule.losses"),
        ({"disconnect": DisconnectPolicy(lost_after_s=MAX_DURATION_S * 2)}, "disconnect.lost_after_s"),
        ({"disconnect": DisconnectPolicy(stop_after_s=-1.0)}, "disconnect.stop_after_s"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        check_spec(changed(**fields))


@pytest.mark.parametrize("options", [{"a": math.nan}, {"a": {1: 2}}, {"a": object()}, {"a": {"b", "c"}}])
def test_options_are_plain_values_so_that_every_language_can_read_them(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="options of wasm"):
        Implementation("wasm", options=options)


def test_an_untouched_policy_costs_one_byte() -> None:
    assert msgspec.to_builtins(RestartPolicy()) == {}
    assert msgspec.to_builtins(GOOD) == {
        "name": "a",
        "implementations": ({"executor": "process", "args": ("true",)},),
    }


def test_a_wrong_spec_still_crosses_the_wire_so_that_the_answer_can_name_the_field() -> None:
    wrong = Submit(1, ("k",), (changed(instances=0),))
    assert decode_batch(encode(wrong)) == [wrong]


def test_blobs_are_those_of_implementations_and_files() -> None:
    other = blob_id(b"y")
    spec = changed(implementations=(Implementation("wasm", BLOB), RUN), files=(File("f", other),))
    assert spec.blobs() == {BLOB, other}


@pytest.mark.parametrize("path", ["a", "a/b", "..a", "a..b/c", "a b"])
def test_a_path_inside_passes(path: str) -> None:
    check_relative_path(path, "file")


@pytest.mark.parametrize("path", ["", "/", "/a", "..", "../a", "a/..", "a/../b", "a\0b", "x" * 513])
def test_a_path_that_could_leave_its_directory_is_refused(path: str) -> None:
    with pytest.raises(SpecError, match="must be a relative path"):
        check_relative_path(path, "file")
