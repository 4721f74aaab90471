"""A registry on loopback that serves one image, and fails as asked. The registry API v2, read-only.

Engines speak plain HTTP to registries on 127.0.0.0/8.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from .engine import files_of_busybox

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry:
    """Serves `<host>/<name>:1`.

    Parameters:
        name: repository.
        login: user and password that it demands; None: none.
        seed: makes this image's layers differ from those of others, so that each is really fetched.

    Attributes:
        cut: how many times a blob's transfer is broken off half-way.
        refuse: how many requests are answered with 500.
        gate: blobs wait for it.
        voice: manifests wait for it.
        asked: paths that were asked for.
    """

    def __init__(self, name: str, login: tuple[str, str] | None = None, seed: int = 0) -> None:
        self.name = name
        self.login = login
        self.cut = 0
        self.refuse = 0
        self.gate = threading.Event()
        self.gate.set()
        self.voice = threading.Event()
        self.voice.set()
        self.asked: list[str] = []
        self.lock = threading.Lock()
        self.blobs: dict[str, tuple[str, bytes]] = {}
        self.manifest = self._image(seed)
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.answer(self)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    @property
    def image(self) -> str:
        return f"{self.host}/{self.name}:1"

    def __enter__(self) -> Registry:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.set()
        self.voice.set()
        self.server.shutdown()
        self.server.server_close()

    def asked_for(self, part: str) -> int:
        return sum(part in path for path in self.asked)

    def _image(self, seed: int) -> bytes:
        from io import BytesIO
        from tarfile import TarInfo
        from tarfile import open as open_tar

        filler = BytesIO()
        with open_tar(fileobj=filler, mode="w") as tar:
            entry = TarInfo("filler")
            entry.size = 3 << 20
            tar.addfile(entry, BytesIO(random.Random(seed).randbytes(entry.size)))
        layers = [files_of_busybox(), filler.getvalue()]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["echo", "from the registry"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }
        described = []
        for kind, data in [
            (CONFIG, json.dumps(config).encode()),
            *((LAYER, gzip.compress(layer, 1, mtime=0)) for layer in layers),
        ]:
            self.blobs[digest(data)] = (kind, data)
            described.append({"mediaType": kind, "size": len(data), "digest": digest(data)})
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described[0],
            "layers": described[1:],
        }
        return json.dumps(manifest).encode()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path
        self.asked.append(f"{request.command} {path}")
        if self.login is not None:
            wanted = base64.b64encode(":".join(self.login).encode()).decode()
            if request.headers.get("Authorization") != f"Basic {wanted}":
                error = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
                self.send(
                    request,
                    401,
                    "application/json",
                    json.dumps(error).encode(),
                    {"WWW-Authenticate": 'Basic realm="test"'},
                )
                return
        if path == "/v2/":
            self.send(request, 200, "application/json", b"{}")
            return
        with self.lock:
            refused = self.refuse > 0
            self.refuse -= refused
        base = f"/v2/{self.name}/"
        if "/manifests/" in path:
            self.voice.wait(60)
        blob = self.blobs.get(path.removeprefix(f"{base}blobs/"))
        if refused:
            self.send(request, 500, "text/plain", b"the registry has a bad day")
        elif path in (f"{base}manifests/1", f"{base}manifests/{digest(self.manifest)}"):
            self.send(
                request,
                200,
                MANIFEST,
                self.manifest,
                {"Docker-Content-Digest": digest(self.manifest)},
            )
        elif blob is not None:
            self.send_blob(request, *blob)
        else:
            error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            self.send(request, 404, "application/json", json.dumps(error).encode())

    def send_blob(self, request: BaseHTTPRequestHandler, kind: str, data: bytes) -> None:
        with self.lock:
            cut = self.cut > 0 and len(data) > 1 << 20
            self.cut -= cut
        if request.command == "GET" and kind == LAYER:
            self.gate.wait(60)
        if cut:
            request.send_response(200)
            request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data[: len(data) // 2])
            request.wfile.flush()
            request.close_connection = True
            request.connection.shutdown(2)
            return
        self.send(request, 200, "application/octet-stream", data)

    def send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        kind: str,
        body: bytes,
        headers: dict[str, str] | None = None,
    ) -> None:
        try:
            request.send_response(status)
            request.send_header("Content-Type", kind)
            request.send_header("Content-Length", str(len(body)))
            request.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            for name, value in (headers or {}).items():
                request.send_header(name, value)
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(body)
        except OSError:
            request.close_connection = True
