"""Starts a run: checks what it asks for, has its image fetched, has its container made and started."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import anyio
import anyio.lowlevel
import msgspec

from edgerm_core.errors import ExecutorError
from edgerm_core.interfaces import Sandbox, TaskHandle, TaskLaunch
from edgerm_core.results import RESULT_NAME
from edgerm_executor_docker.api import Engine
from edgerm_executor_docker.config import DockerConfig
from edgerm_executor_docker.facts import EngineFacts
from edgerm_executor_docker.image_name import ImageName, parse_image_name
from edgerm_executor_docker.oom import oom_kills
from edgerm_executor_docker.options import DockerOptions, read_options
from edgerm_executor_docker.output import ring_ends
from edgerm_executor_docker.permissions import (
    allowed_capabilities,
    allowed_devices,
    allowed_mounts,
    allowed_network,
    check_ulimits,
)
from edgerm_executor_docker.pulls import Pulls
from edgerm_executor_docker.request import (
    Grants,
    build_request,
    container_name,
    mem_limit_bytes,
)
from edgerm_executor_docker.run import RunData, make_handle
from edgerm_executor_docker.start_errors import lacks_init, refusal_error
from edgerm_executor_docker.streams import EngineGone, EngineRefused
from edgerm_executor_docker.watch import Watch
from edgerm_executor_docker.work_dir import needs_opening, open_directories

log = logging.getLogger(__name__)

ABANDON_TIMEOUT_S: Final = 60.0
"""For taking back a start that failed or was cancelled; the watch over all runs goes on with it."""

DEFAULTS_KEEP_S: Final = 60.0
"""A name may be given to another image meanwhile; asking each time would cost each start a call."""

MAX_DEFAULTS: Final = 256


class Defaults(msgspec.Struct, frozen=True):
    """What an image's containers have.

    Attributes:
        at: when the engine said so, by the event loop's clock.
        user: whom they run as.
        stop_signal: what asks them to end; empty: SIGTERM.
    """

    at: float
    user: str
    stop_signal: str


class Launcher:
    """Starts runs.

    Parameters:
        agent: returns whose containers they are; raises OSError if that cannot be known.
    """

    def __init__(
        self,
        config: DockerConfig,
        engine: Engine,
        watch: Watch,
        pulls: Pulls,
        agent: Callable[[], str],
    ) -> None:
        self._config = config
        self._engine = engine
        self._watch = watch
        self._pulls = pulls
        self._agent = agent
        self._defaults: dict[tuple[str, str, str], Defaults] = {}
        self._init_works = True

    async def start(self, launch: TaskLaunch, sandbox: Sandbox) -> TaskHandle:
        """Start a run and return its handle once it runs. If cancelled, nothing stays behind.

        Raises:
            SpecError: if its options make no sense, or the operator does not allow what it asks for.
            ExecutorError: if it cannot be started.
            EngineGone: if the engine does not answer.
            OSError: if the disk refuses.
        """
        options = read_options(launch.name, launch.implementation)
        image = parse_image_name(options.image)
        facts = await self._watch.ready()
        name = container_name(self._agent(), launch)
        async with self._watch.making(name):
            if (options.pull or self._config.pull) == "always" and image.host:
                await self._pulls.pull(image, sandbox.report)
            return await self._start(launch, sandbox, options, image, facts, name)

    async def _start(
        self,
        launch: TaskLaunch,
        sandbox: Sandbox,
        options: DockerOptions,
        image: ImageName,
        facts: EngineFacts,
        name: str,
    ) -> TaskHandle:
        while True:
            grants = await self._engine.in_thread(lambda: self._grants(launch, sandbox, options, facts))
            request = build_request(launch, options, grants)
            try:
                container = await self._create(request, image, options, name, sandbox)
                return await self._launch(launch, sandbox, options, grants, container, name)
            except EngineRefused as error:
                if grants.init and options.init and lacks_init(error.message):
                    log.warning("this engine has no init; containers are run without one")
                    self._init_works = False
                    continue
                raise refusal_error(error.message) from error

    def _grants(
        self, launch: TaskLaunch, sandbox: Sandbox, options: DockerOptions, facts: EngineFacts
    ) -> Grants:
        """Check what the task asks for, and lay out its directory. In a worker thread."""
        network = allowed_network(self._config, options)
        capabilities = allowed_capabilities(self._config, options)
        devices = allowed_devices(self._config, options)
        check_ulimits(self._config, options)
        mounts = allowed_mounts(self._config, options)
        work_dir = sandbox.work_dir.absolute()
        (work_dir / RESULT_NAME).unlink(missing_ok=True)
        return Grants(
            agent=self._agent(),
            network=network,
            mounts=mounts,
            devices=devices,
            capabilities=capabilities,
            pids_limit=options.pids_limit or self._config.pids_limit_default,
            work_dir=work_dir,
            log_driver=facts.log_driver,
            log_bytes=sandbox.log_limit_bytes,
            init=self._init_works,
            disk_limit=facts.disk_limit,
        )

    async def _create(
        self,
        request: dict[str, Any],
        image: ImageName,
        options: DockerOptions,
        name: str,
        sandbox: Sandbox,
    ) -> str:
        """Make the container, fetching the image if it is not there; return its id."""
        may_pull = (options.pull or self._config.pull) != "never" and bool(image.host)
        may_clear = True
        while True:
            try:
                return await self._create_once(request, name)
            except EngineRefused as error:
                if error.status == 404 and "image" in error.message.lower():
                    if not may_pull:
                        raise ExecutorError(
                            f"image {image.text} is not on this machine, and is not to be pulled"
                        ) from error
                    may_pull = False
                    await self._pulls.pull(image, sandbox.report)
                elif may_clear and "already in use" in error.message and await self._clear(name):
                    may_clear = False
                else:
                    raise

    async def _create_once(self, request: dict[str, Any], name: str) -> str:
        # Shielded, so that the id of what has been made is known.
        with anyio.CancelScope(shield=True):
            made = await self._engine.call(
                lambda client: client.create_container_from_config(request, name),  # type: ignore[no-untyped-call]
                start=True,
            )
        container = str(made["Id"])
        try:
            await anyio.lowlevel.checkpoint_if_cancelled()
        except anyio.get_cancelled_exc_class():
            await self._abandon(container)
            raise
        return container

    async def _clear(self, name: str) -> bool:
        """Remove what an earlier try of the same run has left under its name; False: it is not ours."""
        state = await self._watch.inspect(name)
        if state is not None and state.agent != self._agent():
            return False
        return state is None or await self._watch.remove(name)

    async def _launch(
        self,
        launch: TaskLaunch,
        sandbox: Sandbox,
        options: DockerOptions,
        grants: Grants,
        container: str,
        name: str,
    ) -> TaskHandle:
        """Start the container that has been made, or remove it."""
        log_dir = str(sandbox.log_dir.absolute())
        stdout_base, stderr_base = ring_ends(log_dir)
        data = RunData(
            container=container,
            name=name,
            log_dir=log_dir,
            log_limit_bytes=sandbox.log_limit_bytes,
            stdout_base=stdout_base,
            stderr_base=stderr_base,
            result_path=str(grants.work_dir / RESULT_NAME),
            mem_limit_bytes=mem_limit_bytes(launch),
            network=grants.network,
            oom_kills=oom_kills(),
            boot=self._watch.boot,
            engine=self._watch.instance,
        )
        run = self._watch.follow(data)
        try:
            await run.output.attach(container)
            defaults = await self._defaults_of(options, container)
            if needs_opening(defaults.user):
                volumes = [place for volume, place in launch.volumes if not volume.read_only]
                await self._engine.in_thread(lambda: open_directories([grants.work_dir, *volumes]))
            run.data = msgspec.structs.replace(data, stop_signal=defaults.stop_signal)
            await self._engine.call(lambda client: client.start(container), start=True)
        except BaseException:
            await run.output.close()
            await self._abandon(container)
            self._watch.forget(container)
            raise
        return make_handle(run.data)

    async def _defaults_of(self, options: DockerOptions, container: str) -> Defaults:
        """Return what options and image together say about a container that has been made."""
        key = (options.image, options.user, options.stop_signal)
        known = self._defaults.get(key)
        now = anyio.current_time()
        if known is None or now - known.at > DEFAULTS_KEEP_S:
            state = await self._watch.inspect(container)
            if state is None:
                raise EngineGone("the engine has lost a container that it has just made")
            if len(self._defaults) >= MAX_DEFAULTS:
                self._defaults.clear()
            known = self._defaults[key] = Defaults(now, state.user, state.stop_signal)
        return known

    async def _abandon(self, container: str) -> None:
        with anyio.move_on_after(ABANDON_TIMEOUT_S, shield=True):
            await self._watch.remove(container)
