"""The README's examples do what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugins.executor_wasm.conftest import Rig

pytestmark = pytest.mark.anyio

README = Path(__file__).parents[3] / "plugins" / "executor_wasm" / "README.md"


def example(name: str) -> str:
    """Return the indented block with the module that exports `name`."""
    blocks = re.findall(r"(?:^    .*\n)+", README.read_text(), re.MULTILINE)
    [block] = [block for block in blocks if f'(export "{name}")' in block]
    return str(block).strip()


async def test_function_of_numbers(rig: Rig) -> None:
    assert (await rig.run(rig.launch(example("add"), "add", 40, 2))).result == b"42"


@pytest.mark.parametrize("data", [b"edge", b"", bytes(range(256)) * 200])
async def test_function_of_bytes(rig: Rig, data: bytes) -> None:
    ended = await rig.run(rig.launch(example("reverse"), "reverse", abi="bytes", input=data))
    assert ended.ok, ended.message
    assert ended.result == data[::-1]
