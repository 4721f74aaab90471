"""Progress in one sentence, and which failures are worth another try."""

from __future__ import annotations

from typing import Any

import pytest
from edgerm_executor_docker.pull_progress import Progress, is_transient, with_hint
from hypothesis import given, settings
from hypothesis import strategies as st


def line(layer: str, status: str, current: int = 0, total: int = 0) -> dict[str, Any]:
    detail = {"current": current, "total": total} if total else {}
    return {"id": layer, "status": status, "progressDetail": detail}


def test_layers_add_up_to_one_sentence() -> None:
    progress = Progress("x:1")
    assert progress.text == "pulling x:1"
    progress.feed({"status": "Pulling from x", "id": "1"})
    for layer in "abc":
        progress.feed(line(layer, "Pulling fs layer"))
    assert progress.text == "pulling x:1"
    progress.feed(line("a", "Downloading", 10 << 20, 30 << 20))
    progress.feed(line("b", "Downloading", 2 << 20, 10 << 20))
    assert progress.text == "pulling x:1: 12 of 40 MiB"
    progress.feed(line("a", "Download complete"))
    assert progress.text == "pulling x:1: 32 of 40 MiB"
    progress.feed(line("b", "Verifying Checksum"))
    progress.feed(line("c", "Already exists"))
    assert progress.text == "unpacking x:1: 1 of 3 layers"
    progress.feed(line("a", "Extracting", 1, 2))
    progress.feed(line("a", "Pull complete"))
    assert progress.text == "unpacking x:1: 2 of 3 layers"


def test_small_images_have_a_decimal() -> None:
    progress = Progress("x")
    progress.feed(line("a", "Downloading", 1 << 19, 3 << 20))
    assert progress.text == "pulling x: 0.5 of 3.0 MiB"


def test_error_is_kept() -> None:
    progress = Progress("x")
    progress.feed({"errorDetail": {"message": "no"}, "error": "no"})
    assert progress.error == "no"


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["id", "status", "progressDetail", "error"]),
            st.none()
            | st.text(max_size=5)
            | st.sampled_from(["Downloading", "Extracting", "Pull complete"])
            | st.dictionaries(st.sampled_from(["current", "total"]), st.none() | st.integers(-5, 5)),
        ),
        max_size=8,
    )
)
@settings(max_examples=150, deadline=None)
def test_any_lines_do_no_harm(lines: list[dict[str, Any]]) -> None:
    progress = Progress("x")
    for each in lines:
        progress.feed(each)
        assert progress.text


@pytest.mark.parametrize(
    "message",
    [
        "manifest for x:1 not found: manifest unknown: manifest unknown",
        "pull access denied for x, repository does not exist or may require 'docker login'",
        "unauthorized: incorrect username or password",
        "no basic auth credentials",
        "no matching manifest for linux/arm/v7 in the manifest list entries",
        "write /var/lib/docker/tmp/x: no space left on device",
    ],
)
def test_plain_no_is_final(message: str) -> None:
    assert not is_transient(message)


@pytest.mark.parametrize(
    "message",
    [
        "dial tcp 127.0.0.1:5000: connect: connection refused",
        "dial tcp: lookup registry.example on 127.0.0.53:53: no such host",
        "net/http: TLS handshake timeout",
        "toomanyrequests: You have reached your pull rate limit",
        "received unexpected HTTP status: 500 Internal Server Error",
        "unexpected EOF",
    ],
)
def test_trouble_on_the_way_may_pass(message: str) -> None:
    assert is_transient(message)


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        (
            'Get "https://pi:5000/v2/": http: server gave HTTP response to HTTPS client',
            "insecure-registries",
        ),
        (
            "pinging container registry pi:5000: tls: first record does not look like a TLS handshake",
            "Podman",
        ),
        ("x509: certificate has expired or is not yet valid: current time 1970", "clock"),
    ],
)
def test_what_a_person_can_do_is_said(message: str, hint: str) -> None:
    assert with_hint(message).startswith(message)
    assert hint in with_hint(message)


def test_other_sentences_stay_as_they_are() -> None:
    assert with_hint("manifest unknown") == "manifest unknown"
