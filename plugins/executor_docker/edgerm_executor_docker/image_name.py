"""Names of images, as people write them: which registry, which repository, which version. No I/O."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from edgerm_core.errors import SpecError

DOCKER_HUB: Final = "docker.io"
"""The registry of names without a host."""

MAX_NAME: Final = 512

_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST: Final = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,128}")
_ID: Final = re.compile(r"sha256:[0-9a-f]{64}")


class ImageName(msgspec.Struct, frozen=True):
    """An image's name in parts.

    Attributes:
        text: as it was written.
        host: of its registry; empty for an image's id, which no registry knows.
        name: all that comes before tag and digest, as it was written.
        version: its digest if it has one, else its tag, else `latest`.
    """

    text: str
    host: str
    name: str
    version: str


def parse_image_name(text: str) -> ImageName:
    """Read `[host[:port]/]path[:tag][@digest]`, or an id, `sha256:…`.

    Grammar: github.com/distribution/reference. A first part counts as a host if it holds a dot or a
    colon, or is `localhost`.

    Raises:
        SpecError: if no engine would take it.
    """
    if _ID.fullmatch(text):
        return ImageName(text, "", text, "")
    name, at, digest = text.partition("@")
    slash = name.rfind("/")
    colon = name.find(":", slash + 1)
    tag = ""
    has_tag = colon >= 0
    if has_tag:
        name, tag = name[:colon], name[colon + 1 :]
    first, separator, rest = name.partition("/")
    named_host = bool(separator) and ("." in first or ":" in first or first == "localhost")
    host, path = (first, rest) if named_host else (DOCKER_HUB, name)
    if (
        len(text) > MAX_NAME
        or not _HOST.fullmatch(host)
        or not _REPOSITORY.fullmatch(path)
        or (has_tag and not _TAG.fullmatch(tag))
        or (at and not _DIGEST.fullmatch(digest))
    ):
        raise SpecError(
            f"{text[:120]!r} is no image name: expected something like busybox:1.36 or "
            f"registry.example.org/team/image:tag, in lower case"
        )
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = DOCKER_HUB
    return ImageName(text, host, name, digest or tag or "latest")
