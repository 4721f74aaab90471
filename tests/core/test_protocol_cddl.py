"""`protocol.cddl`, `messages.py` and the test vectors say the same.

Two independent tools read the specification: pycddl (its map rules, and the whole file's syntax) and
zcbor (optional elements of arrays, which pycddl's library cannot do).
"""

import functools
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cbor2
import msgspec
import pycddl  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings

import edgerm_core
import edgerm_core.errors
from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.attributes import Constraint, Preference
from edgerm_core.codec import decode_batch, encode
from edgerm_core.frameworks import FrameworkInfo
from edgerm_core.messages import PROTOCOL_VERSION, AnyMessage, Auth, TaskReport
from edgerm_core.offers import Offer
from edgerm_core.resources import Device, DeviceRequest, ResourceRequest, Resources
from edgerm_core.tasks import (
    DisconnectPolicy,
    File,
    Implementation,
    ReschedulePolicy,
    RestartPolicy,
    TaskSpec,
    TaskState,
    Volume,
)
from edgerm_core.testing.strategies import message_of

ROOT = Path(__file__).parents[2]
CDDL = (Path(edgerm_core.__file__).parent / "protocol.cddl").read_text(encoding="utf-8")
VECTORS = json.loads((ROOT / "docs/protocol/vectors.json").read_text(encoding="utf-8"))
TYPES = {message_type.__name__: message_type for message_type in AnyMessage.__args__}


def rule_name(message_type: type) -> str:
    """Return `status-update` for StatusUpdate."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", message_type.__name__).lower()


@pytest.fixture(scope="module")
def validate() -> Callable[[str, bytes], None]:
    # cbor2 6 has only the base of the exception class that zcbor 0.9 imports.
    if not hasattr(cbor2, "CBORDecodeValueError"):
        cbor2.CBORDecodeValueError = cbor2.CBORDecodeError  # type: ignore[attr-defined]
    from zcbor import DataTranslator  # type: ignore[import-untyped]

    # It does not know `.regexp`.
    types = DataTranslator.from_cddl(re.sub(r' \.regexp "[^"]*"', "", CDDL), 10_000).my_types
    return lambda rule, data: types[rule].validate_str(data)


@functools.cache
def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_cddl() -> None:
    pycddl.Schema(CDDL)


def test_each_message_has_one_rule_with_its_number_and_is_named_in_the_union() -> None:
    union = re.search(r"^any-message =\n(.*?)\n\n", CDDL, re.M | re.S)
    assert union is not None
    assert re.findall(r"[a-z-]+", union[1]) == [rule_name(t) for t in AnyMessage.__args__]
    numbered = re.findall(r"^([a-z-]+) = \[(\d+)\b", CDDL, re.M)
    assert numbered == [(rule_name(t), str(t.__struct_config__.tag)) for t in AnyMessage.__args__]


def test_every_rule_is_defined_once_and_used() -> None:
    code = re.sub(r";.*", "", CDDL)
    names = re.findall(r"^([a-z0-9-]+) =", code, re.M)
    assert len(names) == len(set(names))
    for name in names:
        uses = len(re.findall(rf"(?<![a-z0-9-]){name}(?![a-z0-9-])", code))
        assert uses > 1 or name == "any-message", f"rule {name} is not used"


def rule_body(name: str, opening: str, closing: str) -> str:
    """Return what stands between a rule's brackets, without comments."""
    code = re.sub(r";.*", "", CDDL)
    start = re.search(rf"^{name} = {re.escape(opening)}", code, re.M)
    assert start is not None, name
    depth, end = 1, start.end()
    while depth:
        depth += {opening: 1, closing: -1}.get(code[end], 0)
        end += 1
    return code[start.end() : end - 1]


def elements(body: str) -> list[str]:
    """Return the elements of an array rule, optional ones too, without the room for later ones."""
    # What is inside an element's own brackets does not count; the groups of optional elements do.
    while (flat := re.sub(r"\[[^][]*\]|\{[^{}]*\}", "", body)) != body:
        body = flat
    found = [part.strip(" \n()?") for part in body.split(",")]
    return [part for part in found if not part.startswith("* any")]


NESTED_ARRAYS = (
    Auth,
    TaskReport,
    AgentInfo,
    Fingerprint,
    FrameworkInfo,
    Offer,
    Constraint,
    Preference,
    Resources,
    ResourceRequest,
    DeviceRequest,
    Device,
)
MAPS = (
    TaskSpec,
    Implementation,
    File,
    Volume,
    RestartPolicy,
    ReschedulePolicy,
    DisconnectPolicy,
)


@pytest.mark.parametrize("struct", [*AnyMessage.__args__, *NESTED_ARRAYS], ids=rule_name)
def test_an_array_rule_has_an_element_for_each_field_and_no_other(struct: type[msgspec.Struct]) -> None:
    """Room for later elements would otherwise let a forgotten field pass every validation."""
    tag = 0 if struct in NESTED_ARRAYS else 1
    found = elements(rule_body(rule_name(struct), "[", "]"))
    assert len(found) == tag + len(struct.__struct_fields__), found


@pytest.mark.parametrize("struct", MAPS, ids=rule_name)
def test_a_map_rule_has_the_keys_of_the_spec_s_part_and_no_other(struct: type[msgspec.Struct]) -> None:
    body = rule_body(rule_name(struct), "{", "}")
    assert re.findall(r'"([a-z_]+)":', body) == list(struct.__struct_fields__)


def test_every_task_state_is_listed() -> None:
    rule = re.search(r"^task-state = (.*)$", CDDL, re.M)
    assert rule is not None
    assert [int(n) for n in rule[1].split("/")] == list(TaskState)
    for state in TaskState:
        assert f"{state.value} {state.name}" in CDDL


@pytest.mark.parametrize("message_type", AnyMessage.__args__, ids=rule_name)
def test_whatever_we_send_satisfies_its_rule(
    message_type: type[AnyMessage], validate: Callable[[str, bytes], None]
) -> None:
    @settings(max_examples=10, deadline=None)
    @given(message_of(message_type))
    def check(message: AnyMessage) -> None:
        validate(rule_name(message_type), encode(message))

    check()


@pytest.mark.parametrize(
    "raw",
    [
        [3, [], "later"],
        [7, 1, 1, 1, "later"],
        [6, 1, 1, 1, 4, "r", "m", 0, None, None, None, 0, "later", ["x"]],
        [31, [1], 5],
        [22, 1, ["k"], [{"name": "a", "implementations": [{"executor": "p"}], "later": 1}]],
    ],
)
def test_what_the_rules_allow_for_later_versions_is_read(
    raw: list[Any], validate: Callable[[str, bytes], None]
) -> None:
    validate("any-message", cbor2.dumps(raw))
    decode_batch(cbor2.dumps(raw))


@pytest.mark.parametrize(
    "raw",
    [
        [7, 1, 1],
        [7, 0, 1, 1],
        [6, 1, 1, 0, 4],
        [6, 1, 1, 1, 7],
        [6, 1, 1, 1, 4, 5],
        [6, 1, 1, 1, 4, "", "", "x"],
        [9, 1, 1, "soon"],
        [10, 1, b"short", 0, 1],
        [14, 1, 1, 3],
        [22, 1, [7], []],
        [22, 1, ["k"], [{"name": "a"}]],
        [31, [1], "x"],
        [50, "1"],
        [99],
        [],
    ],
)
def test_what_the_rules_refuse_the_codec_refuses_too(
    raw: list[Any], validate: Callable[[str, bytes], None]
) -> None:
    with pytest.raises(Exception, match=r"."):
        validate("any-message", cbor2.dumps(raw))
    with pytest.raises(edgerm_core.errors.DecodeError):
        decode_batch(cbor2.dumps(raw))


def test_a_wrong_value_under_a_known_key_of_a_spec_is_refused() -> None:
    rules = CDDL[CDDL.index("; --- tasks") :]
    schema = pycddl.Schema("start = [task-spec]\n" + rules)
    good = {"name": "a", "implementations": [{"executor": "p"}], "kill_grace_s": 1.5, "later": 7}
    schema.validate_cbor(cbor2.dumps([good]))
    wrongs: list[dict[str, Any]] = [{"kill_grace_s": "x"}, {"instances": 1.5}, {"env": []}, {"name": 7}]
    for wrong in wrongs:
        with pytest.raises(pycddl.ValidationError):
            schema.validate_cbor(cbor2.dumps([good | wrong]))


# --- the vectors ------------------------------------------------------------------------------------


def test_the_vectors_are_what_the_script_writes() -> None:
    """If this fails, the bytes on the wire have changed. Mean it, or undo it."""
    script = load_script("make_vectors")
    assert script.render() == (ROOT / "docs/protocol/vectors.json").read_text(encoding="utf-8")


def test_the_vectors_cover_every_message_and_this_version() -> None:
    assert VECTORS["protocol_version"] == PROTOCOL_VERSION
    assert {vector["type"] for vector in VECTORS["vectors"]} == set(TYPES)


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda v: v["name"])
def test_a_vector_decodes_to_its_message_and_back(
    vector: dict[str, Any], validate: Callable[[str, bytes], None]
) -> None:
    data = bytes.fromhex(vector["hex"])
    validate(rule_name(TYPES[vector["type"]]), data)
    (message,) = decode_batch(data)
    assert type(message) is TYPES[vector["type"]]
    assert encode(message) == data
    # What a person reads in `value` is what the bytes say, down to int or float.
    script = load_script("make_vectors")
    assert json.dumps(script.readable(cbor2.loads(data))) == json.dumps(vector["value"])
    assert script.EXAMPLES[vector["name"]] == message
