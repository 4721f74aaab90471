"""Names of images in all their spellings."""

from __future__ import annotations

import pytest
from edgerm_executor_docker.image_name import DOCKER_HUB, ImageName, parse_image_name
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.errors import SpecError

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "host", "name", "version"),
    [
        ("busybox", DOCKER_HUB, "busybox", "latest"),
        ("busybox:1.36", DOCKER_HUB, "busybox", "1.36"),
        ("library/busybox", DOCKER_HUB, "library/busybox", "latest"),
        ("index.docker.io/library/busybox", DOCKER_HUB, "index.docker.io/library/busybox", "latest"),
        ("localhost/x:y", "localhost", "localhost/x", "y"),
        ("127.0.0.1:5000/team/app:v1", "127.0.0.1:5000", "127.0.0.1:5000/team/app", "v1"),
        ("[::1]:5000/app", "[::1]:5000", "[::1]:5000/app", "latest"),
        ("r.example/a__b/c-d.e", "r.example", "r.example/a__b/c-d.e", "latest"),
        (f"busybox@{DIGEST}", DOCKER_HUB, "busybox", DIGEST),
        (f"r.example:1/a:tag@{DIGEST}", "r.example:1", "r.example:1/a", DIGEST),
        (DIGEST, "", DIGEST, ""),
    ],
)
def test_parts(text: str, host: str, name: str, version: str) -> None:
    assert parse_image_name(text) == ImageName(text, host, name, version)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Busybox",
        "busybox:",
        "busybox@",
        "busybox@sha256:abc",
        "-x",
        "a b",
        "a/",
        "/a",
        "r.example:99999999/a",
        "a:b:c",
        "a?fromSrc=http://x",
        "a&b",
        "a\nb",
        "x" * 600,
    ],
)
def test_what_no_engine_takes_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="image name"):
        parse_image_name(text)


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        name = parse_image_name(text)
    except SpecError:
        return
    assert name.text == text
    assert text.startswith(name.name)
