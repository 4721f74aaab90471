"""Calls of the engine: refusals, absence, and engines that come back."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from edgerm_executor_docker.api import Engine as Api
from edgerm_executor_docker.streams import EngineGone, EngineRefused

from .engine import DockerEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api(engine: DockerEngine) -> AsyncIterator[Api]:
    made = Api(lambda: str(engine.socket), 30.0)
    yield made
    made.close()


async def test_answer(api: Api) -> None:
    assert (await api.call(lambda client: client.info()))["OSType"] == "linux"


async def test_refusal_has_the_engines_own_sentence(api: Api) -> None:
    with pytest.raises(EngineRefused, match="No such container: nothing") as caught:
        await api.call(lambda client: client.inspect_container("nothing"))
    assert caught.value.status == 404


async def test_calls_at_once_have_clients_of_their_own(api: Api) -> None:
    seen: set[int] = set()

    async def one() -> None:
        def look(client: object) -> None:
            assert id(client) not in seen
            seen.add(id(client))
            time.sleep(0.05)
            seen.remove(id(client))

        await api.call(look)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(one)


async def test_absence_is_told_without_waiting(tmp_path: Path) -> None:
    api = Api(lambda: str(tmp_path / "nobody"), 30.0)
    for attempt in (
        api.probe(),
        api.call(lambda client: client.ping()),
        api.ping_anew(1.0),
        api.instance(),
    ):
        with pytest.raises(EngineGone, match="no container engine listens"):
            await attempt


async def test_engine_that_never_answers_is_given_up_on(tmp_path: Path) -> None:
    path = tmp_path / "deaf"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        api = Api(lambda: str(path), 1.0)
        await api.probe()
        for attempt in (api.call(lambda client: client.ping()), api.stream("GET", "/events", {})):
            with pytest.raises(EngineGone), anyio.fail_after(60):
                await attempt
        with pytest.raises(EngineGone, match="did not answer within"):
            await api.ping_anew(0.1)


async def test_what_is_raised_inside_a_call_comes_out(api: Api) -> None:
    with pytest.raises(ZeroDivisionError):
        await api.call(lambda client: 1 // 0)
