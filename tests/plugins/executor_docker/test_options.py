"""Options are checked strictly, and each refusal names the option."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from edgerm_executor_docker.options import (
    DockerOptions,
    capability_name,
    read_options,
    read_ports,
    signal_number,
    soft_and_hard,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.errors import SpecError
from edgerm_core.tasks import Implementation


def read(**options: Any) -> DockerOptions:
    return read_options("t", Implementation("docker", options=options))


def test_image_alone_is_enough() -> None:
    options = read(image="busybox")
    assert options.network is None
    assert options.init
    assert options.pull is None


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({}, "image"),
        ({"image": "busybox", "colour": "blue"}, "'colour'"),
        ({"image": "busybox", "privileged": True}, "'privileged'"),
        ({"image": "Not/Lower"}, "image name"),
        ({"image": 7}, "str"),
        ({"image": "busybox", "ports": {"99999": 0}}, "99999"),
        ({"image": "busybox", "ports": {"80/icmp": 0}}, "80/icmp"),
        ({"image": "busybox", "ports": {"80": -1}}, "count from 0"),
        ({"image": "busybox", "ports": {"80": 0, "81": 0}}, "as another one does"),
        ({"image": "busybox", "tmpfs": {"tmp": 1}}, "tmpfs"),
        ({"image": "busybox", "tmpfs": {"/": 1}}, "tmpfs"),
        ({"image": "busybox", "tmpfs": {"/a/../b": 1}}, "tmpfs"),
        ({"image": "busybox", "tmpfs": {"/a": 0}}, "tmpfs"),
        ({"image": "busybox", "working_dir": "tmp"}, "working_dir"),
        ({"image": "busybox", "ulimits": {"NOFILE": 1}}, "NOFILE"),
        ({"image": "busybox", "ulimits": {"nofile": [2, 1]}}, "soft limit"),
        ({"image": "busybox", "ulimits": {"nofile": [1, 2, 3]}}, "nofile"),
        ({"image": "busybox", "stop_signal": "SIGNOTHING"}, "SIGNOTHING"),
        ({"image": "busybox", "stop_signal": "²"}, "no signal"),
        ({"image": "busybox", "cap_add": ["ALL"]}, "ALL"),
        ({"image": "busybox", "cap_add": ["net admin"]}, "net admin"),
        ({"image": "busybox", "labels": {"edgerm.agent": "me"}}, "reserved"),
        ({"image": "busybox", "pids_limit": 0}, "pids_limit"),
        ({"image": "busybox", "network": ""}, "network"),
        ({"image": "busybox", "pull": "maybe"}, "pull"),
        ({"image": "busybox", "mounts": [{"host": "/a"}]}, "path"),
        ({"image": "busybox", "mounts": [{"host": "/a", "path": "/b", "rw": True}]}, "rw"),
        ({"image": "busybox", "devices": ["/dev/x"] * 65}, "devices has more than 64"),
        ({"image": "busybox", "entrypoint": ["a\0b"]}, "NUL"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(options: dict[str, Any], part: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_options("t", Implementation("docker", options=options))
    assert part in str(caught.value)
    assert "task t" in str(caught.value)


def test_unknown_option_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match="image, entrypoint, working_dir"):
        read(image="busybox", comand=["x"])


def test_ports_as_table_and_as_list() -> None:
    assert read_ports(read(image="b", ports={"8080": 1, "53/udp": 0})) == [
        (8080, "tcp", 1),
        (53, "udp", 0),
    ]
    assert read_ports(read(image="b", ports={"53/tcp": 0, "53/udp": 0})) == [
        (53, "tcp", 0),
        (53, "udp", 0),
    ]
    assert read_ports(read(image="b", ports=[8080, "53/udp"])) == [(8080, "tcp", 0), (53, "udp", 1)]


@pytest.mark.parametrize("name", ["SIGINT", "int", "INT", "2"])
def test_signals_in_all_spellings(name: str) -> None:
    assert signal_number(name) == 2


def test_capabilities_in_both_spellings() -> None:
    assert capability_name("CAP_NET_ADMIN") == capability_name("net_admin") == "NET_ADMIN"


def test_one_ulimit_is_both() -> None:
    assert soft_and_hard("nofile", 5) == (5, 5)
    assert soft_and_hard("nofile", (5, -1)) == (5, -1)
    assert soft_and_hard("core", -1) == (-1, -1)
    for wrong in ((-1, 5), (), (1,), -2, 1 << 63):
        with pytest.raises(SpecError):
            soft_and_hard("core", wrong)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 1 << 40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from([field.name for field in msgspec.structs.fields(DockerOptions)]), plain)
)
@settings(max_examples=200, deadline=None)
def test_any_plain_options_are_read_or_refused(options: dict[str, Any]) -> None:
    try:
        read = read_options("t", Implementation("docker", options=options))
    except SpecError:
        return
    assert read.image
