"""Images from a registry, over a real engine: progress, sharing, logging in, and all that goes wrong."""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from edgerm_executor_docker import pulls as pulls_module
from edgerm_executor_docker.api import Engine
from edgerm_executor_docker.background import Background
from edgerm_executor_docker.config import DockerConfig
from edgerm_executor_docker.config import Registry as Login
from edgerm_executor_docker.image_name import parse_image_name
from edgerm_executor_docker.pulls import Pulls

from edgerm_core.errors import ExecutorError
from edgerm_core.tasks import Reason
from edgerm_core.testing.contracts.executor import until

from .engine import DockerEngine, PodmanEngine
from .registry import Registry

pytestmark = pytest.mark.anyio

_numbers = itertools.count(os.getpid() * 1000)


def registry(**settings: Any) -> Registry:
    """A registry whose image no engine has yet."""
    number = next(_numbers)
    return Registry(f"team/image{number}", seed=number, **settings)


class Puller:
    def __init__(self, url: str, **settings: Any) -> None:
        config = DockerConfig(socket=url, **settings)
        self.background = Background()
        self.engine = Engine(lambda: url.removeprefix("unix://"), 60.0)
        self.pulls = Pulls(config, self.engine, self.background, first_retry_s=0.01)
        self.reports: list[str] = []

    async def pull(self, image: str) -> None:
        with anyio.fail_after(60):
            await self.pulls.pull(parse_image_name(image), self.reports.append)

    async def fails(self, image: str) -> ExecutorError:
        with pytest.raises(ExecutorError) as caught:
            await self.pull(image)
        return caught.value

    async def close(self) -> None:
        await self.background.close()
        self.engine.close()


@pytest.fixture
async def puller(engine: DockerEngine) -> AsyncIterator[Puller]:
    made = Puller(engine.url)
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def slow_engine_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing for some seconds on a busy machine is not taken for an engine that hangs."""
    monkeypatch.setattr(pulls_module, "PING_S", 60.0)


def has(engine: DockerEngine, image: str) -> bool:
    return engine.request("GET", f"/images/{image}/json")[0] == 200


async def test_image_is_there_afterwards_and_progress_was_told(
    engine: DockerEngine, puller: Puller
) -> None:
    with registry() as source:
        await puller.pull(source.image)
        assert has(engine, source.image)
        engine.call("DELETE", f"/images/{source.image}", force="true")
    assert puller.reports[0] == f"pulling {source.image}"
    assert any("MiB" in report or "unpacking" in report for report in puller.reports)


async def test_one_transfer_serves_all_who_want_the_image(engine: DockerEngine, puller: Puller) -> None:
    with registry() as source:
        source.gate.clear()
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(puller.pull, source.image)
            await until(lambda: source.asked_for("blobs") >= 2, "nobody asked for the layers")
            source.gate.set()
        # One look and one fetch at most; five pulls would ask five times as often.
        assert source.asked_for("manifests") <= 2
        engine.call("DELETE", f"/images/{source.image}", force="true")


async def test_only_so_many_images_are_fetched_at_once(engine: DockerEngine) -> None:
    puller = Puller(engine.url, max_pulls=1)
    with registry() as first, registry() as second:
        first.gate.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(puller.pull, first.image)
            await until(lambda: first.asked_for("blobs") > 0, "the first is not being fetched")
            group.start_soon(puller.pull, second.image)
            await until(lambda: any("waiting" in report for report in puller.reports), "nobody waits")
            assert second.asked == []
            first.gate.set()
        for source in (first, second):
            engine.call("DELETE", f"/images/{source.image}", force="true")
    await puller.close()


async def test_transfer_that_breaks_off_is_taken_up_again(engine: DockerEngine, puller: Puller) -> None:
    with registry() as source:
        source.cut = 1
        await puller.pull(source.image)
        assert source.cut == 0
        assert has(engine, source.image)
        engine.call("DELETE", f"/images/{source.image}", force="true")


async def test_registry_with_a_bad_day_is_asked_again(engine: DockerEngine, puller: Puller) -> None:
    with registry() as source:
        source.refuse = 2
        await puller.pull(source.image)
        engine.call("DELETE", f"/images/{source.image}", force="true")
    assert any("next try" in report for report in puller.reports)


async def test_registry_that_stays_broken_is_given_up_as_no_fault_of_the_task(puller: Puller) -> None:
    with registry() as source:
        source.refuse = 1000
        error = await puller.fails(source.image)
    assert error.reason == Reason.BLOB_UNAVAILABLE
    assert error.recoverable
    assert "5 tries" in str(error)


async def test_image_that_is_not_there_fails_at_once_with_the_registrys_reason(puller: Puller) -> None:
    with registry() as source:
        error = await puller.fails(f"{source.host}/team/no-such-image:1")
        assert source.asked_for("no-such-image") <= 4
    assert error.reason == Reason.LAUNCH_FAILED
    assert not error.recoverable
    assert "no-such-image" in str(error)
    assert "manifest unknown" in str(error) or "not found" in str(error)


async def test_registry_that_nobody_answers_at_is_tried_again(puller: Puller) -> None:
    with registry() as source:
        pass
    error = await puller.fails(source.image)
    assert error.recoverable
    assert "connection refused" in str(error)


@pytest.mark.parametrize("way", ["password", "password_file"])
async def test_login_from_the_config_is_used(engine: DockerEngine, tmp_path: Path, way: str) -> None:
    with registry(login=("pi", "s3cret-word")) as source:
        if way == "password":
            login = Login("pi", password="s3cret-word")
        else:
            (tmp_path / "password").write_text("s3cret-word\n")
            login = Login("pi", password_file=str(tmp_path / "password"))
        puller = Puller(engine.url, registries={source.host: login})
        await puller.pull(source.image)
        engine.call("DELETE", f"/images/{source.image}", force="true")
        await puller.close()


async def test_wrong_login_fails_at_once_and_tells_no_secret(
    engine: DockerEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with registry(login=("pi", "right")) as source:
        puller = Puller(engine.url, registries={source.host: Login("pi", password="s3cret-word")})
        error = await puller.fails(source.image)
        await puller.close()
    assert not error.recoverable
    assert error.reason == Reason.LAUNCH_FAILED
    told = str(error) + caplog.text + "".join(puller.reports) + repr(puller.pulls._config)
    assert "s3cret-word" not in told


async def test_unreadable_password_file_is_named(engine: DockerEngine, tmp_path: Path) -> None:
    missing = tmp_path / "no-such-file"
    puller = Puller(engine.url, registries={"r.example": Login("pi", password_file=str(missing))})
    error = await puller.fails("r.example/image:1")
    await puller.close()
    assert str(missing) in str(error)


async def test_who_stops_waiting_leaves_the_transfer_to_the_others(
    engine: DockerEngine, puller: Puller
) -> None:
    with registry() as source:
        source.gate.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(puller.pull, source.image)
            with anyio.move_on_after(0.2):
                await puller.pull(source.image)
            source.gate.set()
        assert has(engine, source.image)
        engine.call("DELETE", f"/images/{source.image}", force="true")


async def test_transfer_nobody_waits_for_goes_on_for_a_while_only(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls_module, "LINGER_S", 0.1)
    with registry() as source:
        source.gate.clear()
        with anyio.move_on_after(0.3):
            await puller.pull(source.image)
        await until(lambda: not puller.pulls._under_way, "it goes on for ever")


async def test_transfer_nobody_waits_for_makes_room_for_one_that_a_task_needs(engine: DockerEngine) -> None:
    puller = Puller(engine.url, max_pulls=1)
    with registry() as unwanted, registry() as wanted:
        unwanted.gate.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(puller.pull, unwanted.image)
            await until(lambda: unwanted.asked_for("blobs") > 0, "it is not being fetched")
            group.cancel_scope.cancel()
        await puller.pull(wanted.image)
        assert has(engine, wanted.image)
        engine.call("DELETE", f"/images/{wanted.image}", force="true")
    await puller.close()


async def test_image_wanted_again_while_its_transfer_is_being_ended_is_fetched_anew(
    engine: DockerEngine, puller: Puller
) -> None:
    with registry() as source:
        source.gate.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(puller.pull, source.image)
            await until(lambda: source.asked_for("blobs") > 0, "it is not being fetched")
            group.cancel_scope.cancel()
        puller.pulls._end_unwanted()
        source.gate.set()
        await puller.pull(source.image)
        assert has(engine, source.image)
        assert not puller.pulls._under_way
        engine.call("DELETE", f"/images/{source.image}", force="true")


async def test_registry_that_never_answers_is_given_up_by_name_and_in_time(engine: DockerEngine) -> None:
    puller = Puller(engine.url, registry_patience_s=2.0)
    with registry() as source:
        source.voice.clear()
        error = await puller.fails(source.image)
    await puller.close()
    assert error.reason == Reason.BLOB_UNAVAILABLE
    assert error.recoverable
    # Less if the engine was asked late.
    assert re.search(f"nothing came from the registry {source.host} for [0-2] s", str(error))


async def test_registry_that_hangs_once_is_asked_again(
    engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls_module, "ANSWER_S", 1.0)
    puller = Puller(engine.url)
    with registry() as source:
        source.voice.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(puller.pull, source.image)
            await until(lambda: any("nothing came" in each for each in puller.reports), "it waits for ever")
            monkeypatch.setattr(pulls_module, "ANSWER_S", 60.0)
            source.voice.set()
        assert has(engine, source.image)
        engine.call("DELETE", f"/images/{source.image}", force="true")
    await puller.close()


async def test_podman_whose_registry_never_answers_gives_up_too(podman: PodmanEngine) -> None:
    puller = Puller(podman.url, registry_patience_s=1.0)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        host = f"127.0.0.1:{deaf.getsockname()[1]}"
        error = await puller.fails(f"{host}/team/image:1")
    await puller.close()
    assert error.reason == Reason.BLOB_UNAVAILABLE
    assert host in str(error)


async def test_registry_without_tls_is_explained(podman: PodmanEngine) -> None:
    puller = Puller(podman.url)
    with registry() as source:
        error = await puller.fails(source.image)
    await puller.close()
    assert "without TLS" in str(error)
    assert error.recoverable


async def test_engine_that_hangs_is_not_blamed_on_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls_module, "PING_S", 0.2)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        deaf.listen()
        puller = Puller(f"unix://{tmp_path}/deaf", registry_patience_s=1.0)
        error = await puller.fails("busybox")
        await puller.close()
    assert error.reason == Reason.EXECUTOR_UNAVAILABLE


async def test_who_waits_long_is_told_now_and_then(
    engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Core ends a start of which nothing is heard.
    monkeypatch.setattr(pulls_module, "TELL_EVERY_S", 0.05)
    puller = Puller(engine.url, max_pulls=1)
    with registry() as first, registry() as second:
        first.gate.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(puller.pull, first.image)
            await until(lambda: first.asked_for("blobs") > 0, "the first is not being fetched")
            group.start_soon(puller.pull, second.image)
            waiting = f"waiting to pull {second.image}: 1 others are on"
            await until(lambda: puller.reports.count(waiting) > 2, "it is told once only")
            first.gate.set()
        for source in (first, second):
            engine.call("DELETE", f"/images/{source.image}", force="true")
    await puller.close()


async def test_engine_that_is_gone_is_no_fault_of_the_task(tmp_path: Path) -> None:
    puller = Puller(f"unix://{tmp_path}/nobody.sock")
    error = await puller.fails("busybox")
    await puller.close()
    assert error.reason == Reason.EXECUTOR_UNAVAILABLE
