"""Certificates for the tests, made by the `openssl` command."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


def _authority(folder: Path, name: str) -> None:
    _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")),
        *("-subj", f"/CN={name}", "-days", "2", "-addext", "keyUsage=critical,keyCertSign"),
    )


def _certificate(folder: Path, name: str, authority: str, subject: str, *, days: int = 2) -> None:
    extensions = folder / f"{name}.ext"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    _openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.csr"), "-subj", subject),
    )
    _openssl(
        *("x509", "-req", "-in", str(folder / f"{name}.csr"), "-CA", str(folder / f"{authority}.pem")),
        *("-CAkey", str(folder / f"{authority}.key"), "-CAcreateserial", "-days", str(days)),
        *("-extfile", str(extensions), "-out", str(folder / f"{name}.pem")),
    )


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """File name to path: `ca.pem`, and `server`, `client`, `stranger`, `expired` as .pem and .key."""
    folder = tmp_path_factory.mktemp("certificates")
    _authority(folder, "ca")
    _authority(folder, "stranger-ca")
    _certificate(folder, "server", "ca", "/CN=master.example")
    _certificate(folder, "client", "ca", "/O=edgerm/CN=agent-7")
    _certificate(folder, "stranger", "stranger-ca", "/CN=stranger")
    _certificate(folder, "expired", "ca", "/CN=expired", days=-1)
    return {path.name: str(path) for path in folder.iterdir()}
