"""Loading modules once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from edgerm_executor_wasm import modules as modules_file

from edgerm_core.errors import ExecutorError
from edgerm_core.tasks import Reason

if TYPE_CHECKING:
    from tests.plugins.executor_wasm.conftest import Rig

pytestmark = pytest.mark.anyio


async def test_many_tasks_of_one_module_compile_it_once(rig: Rig) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(rig.run, rig.launch("numbers", "nothing"))
    assert rig.compiled() == 1


async def test_many_tasks_of_a_damaged_module_all_hear_why(rig: Rig) -> None:
    sentences: list[str] = []

    async def start() -> None:
        with pytest.raises(ExecutorError) as caught:
            await rig.start(rig.launch(b"\0asm\1\0\0\0damaged"))
        sentences.append(str(caught.value))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(start)
    assert len(sentences) == 20
    assert len(set(sentences)) == 1


async def test_cancelled_start_does_not_spoil_it_for_those_who_wait_too(rig: Rig) -> None:
    async with anyio.create_task_group() as group:
        for number in range(10):
            if number % 2:
                group.start_soon(rig.run, rig.launch("numbers", "nothing"))
            else:
                with anyio.move_on_after(0.001):
                    await rig.start(rig.launch("numbers", "nothing"))
    assert rig.compiled() == 1


async def test_module_that_is_not_there_can_be_tried_again(rig: Rig) -> None:
    launch = rig.launch("numbers", "nothing")
    assert launch.blob_path is not None
    data = launch.blob_path.read_bytes()
    launch.blob_path.unlink()
    with pytest.raises(ExecutorError, match="cannot be read") as caught:
        await rig.start(launch)
    assert caught.value.reason == Reason.BLOB_UNAVAILABLE
    assert caught.value.recoverable
    launch.blob_path.write_bytes(data)
    assert (await rig.run(launch)).ok


async def test_modules_in_memory_are_bounded_and_those_in_use_go_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules_file, "MAX_MODULES", 2)
    sleeping = await rig.start(rig.launch("sleeps", "sleep_ms", 300))
    for number in range(5):
        text = f'(module (func (export "f") (result i32) i32.const {number}))'
        assert (await rig.run(rig.launch(text, "f"))).result == str(number).encode()
    runtime = rig.executor._runtime
    assert runtime is not None
    assert len(runtime.modules._ready) == 2
    assert (await rig.wait(sleeping)).ok
