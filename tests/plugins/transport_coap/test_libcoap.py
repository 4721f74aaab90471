"""libcoap's command-line client, an implementation of others, as a device with a real master."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgerm_core.codec import decode_batch
from edgerm_core.messages import HeartbeatAck, Registered
from edgerm_core.testing.processes import Cluster, cluster_in

ROOT = Path(__file__).resolve().parents[3]

NAMES = ("coap-client-notls", "coap-client-openssl", "coap-client-gnutls", "coap-client")


@pytest.fixture(scope="module")
def client() -> str:
    found = next((name for name in NAMES if shutil.which(name)), "")
    if not found:
        if os.environ.get("CI"):
            pytest.fail("libcoap's client not found: install Debian's package libcoap3-bin")
        pytest.skip("needs libcoap's client: install Debian's package libcoap3-bin")
    return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    # The device is as slow as a process for each request: it needs a long lease.
    with cluster_in(tmp_path, "[master]\nheartbeat_s = 20.0\n", schemes=("ws", "coap")) as cluster:
        cluster.start_master()
        yield cluster


class Device:
    """Speaks through one run of the client for each request, and so from a new port each time.

    libcoap 4.3.1 answers no ping in the first quarter of the second in which it has started: it is pinged
    again when it asks again, after two to three seconds.
    """

    def __init__(self, client: str, url: str, directory: Path) -> None:
        self._client = client
        self._url = url
        self._directory = directory
        self.path = "e"
        self.number = 0

    def ask(self, method: str, path: str, payload: bytes = b"", *options: str) -> tuple[str, bytes]:
        """Return what the client logged, and the answer's payload."""
        frame, answer = self._directory / "frame", self._directory / "answer"
        frame.write_bytes(payload)
        answer.unlink(missing_ok=True)
        done = subprocess.run(
            [
                *(self._client, "-B", "10", "-v", "6", "-m", method, "-o", str(answer), *options),
                *(("-f", str(frame)) if payload else ()),
                f"{self._url}/{path}",
            ],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=True,
        )
        return done.stdout + done.stderr, answer.read_bytes() if answer.exists() else b""

    def open(self, payload: bytes) -> bytes:
        log, answer = self.ask("post", "e", payload)
        assert "c:2.01" in log, log
        self.path = "/".join(re.findall(r"Location-Path:([\w-]+)", log))
        return answer

    def exchange(self, payload: bytes = b"") -> bytes:
        self.number += 1
        log, answer = self.ask("post", f"{self.path}?{self.number}", payload)
        assert "c:2.04" in log, log
        return answer

    def answer(self, heard: bytes) -> bytes:
        """Return what the master said or, if it was not ready within 0.1 s, what it says when asked."""
        for _ in range(5):
            heard = heard or self.exchange()
        return heard


def vector(name: str) -> bytes:
    """Return a message of the protocol's vectors."""
    vectors = json.loads((ROOT / "docs/protocol/vectors.json").read_text())["vectors"]
    return next(bytes.fromhex(vector["hex"]) for vector in vectors if vector["name"] == name)


def test_a_device_of_foreign_make_registers_and_works(
    client: str, cluster: Cluster, tmp_path: Path
) -> None:
    device = Device(client, cluster.urls["coap"], tmp_path)
    log, links = device.ask("get", ".well-known/core")
    assert "application/link-format" in log
    assert links == b"</e>;ct=63,</b>;ct=42"

    (welcome,) = decode_batch(device.answer(device.open(vector("register, minimal"))))
    assert isinstance(welcome, Registered)
    (heard,) = decode_batch(device.answer(device.exchange(bytes.fromhex("8103"))))
    assert isinstance(heard, HeartbeatAck)
    assert device.exchange() == b""
    assert cluster.rows("agents")[0]["connected"]

    log, waiting = device.ask("get", device.path, b"", "-s", "2")
    assert "Observe" in log
    assert waiting.startswith(b"0")


def test_it_fetches_a_blob_block_by_block(client: str, cluster: Cluster, tmp_path: Path) -> None:
    """A module that the master has got from a framework."""
    blob = random.Random(9).randbytes(5000)
    name = base64.urlsafe_b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    (tmp_path / "data").write_bytes(blob)
    cluster.edgerm(
        *("run", "--detach", "--name", "waits", "--cpus", "1000"),
        *("--file", str(tmp_path / "data"), "--process", "--", "true"),
    )
    device = Device(client, cluster.urls["coap"], tmp_path)
    device.open(vector("register, minimal"))
    session = device.path.partition("/")[2]
    # Debian 12's libcoap (4.3.1) drops a separate answer that has blocks, and with it the rest of the blob;
    # a master that had to wait for its disk for a second sends one.
    for _ in range(3):
        log, got = device.ask("get", f"b/{session}/{name}", b"", "-b", "256")
        if len(got) == len(blob):
            break
    assert got == blob, log
    assert "ETag" in log
    _, second = device.ask("get", f"b/{session}/{name[:8]}", b"", "-b", "1,256")
    assert blob[256:].startswith(second[:256])
