"""The blocking face of the SDK, for programs without an event loop.

    with blocking.connect_framework(name="hello") as framework:
        task = framework.submit(process("echo", "hello"))
        print(task.wait().state)

One background thread runs the asynchronous face; every call here hands its work over and waits.
All objects may be used from several threads. `timeout_s` bounds a wait: it raises TimeoutError, and
may leave open whether a request was carried out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, Unpack

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from edgerm_core.attributes import Attributes
from edgerm_core.client import framework as async_framework
from edgerm_core.client import operator as async_operator
from edgerm_core.client.logs import LogPiece, StreamName
from edgerm_core.client.offers import HeldOffer as AsyncHeldOffer
from edgerm_core.client.session import CONNECT_TIMEOUT_S, ConnectionCallback
from edgerm_core.client.specs import Submittable, TaskOptions
from edgerm_core.client.tasks import Task as AsyncTask
from edgerm_core.ids import AgentId, BlobId, FrameworkId, TaskId
from edgerm_core.limits import REFUSE_DEFAULT_S
from edgerm_core.messages import Answer, TaskUpdate
from edgerm_core.plugins import Plugins
from edgerm_core.resources import Resources
from edgerm_core.tasks import TaskState

T = TypeVar("T")


class _Loop:
    """Runs coroutines on the background thread."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal

    def run(self, call: Callable[[], Awaitable[T]], timeout_s: float | None = None) -> T:
        """Return what `call` returns; whatever interrupts the wait cancels the call."""

        async def bounded() -> T:
            with anyio.fail_after(timeout_s):
                return await call()

        future = self._portal.start_task_soon(bounded)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Generator[T, None, None]:
        """Yield what `items` yields."""

        async def following() -> tuple[T, ...]:
            async for item in items:
                return (item,)
            return ()

        while item := self.run(following):
            yield item[0]


class Task:
    """A submitted task; see `client.tasks.Task`."""

    def __init__(self, loop: _Loop, task: AsyncTask) -> None:
        self._loop = loop
        self._task = task

    def __repr__(self) -> str:
        return repr(self._task)

    @property
    def id(self) -> TaskId:
        """Given by the master."""
        return self._task.id

    @property
    def name(self) -> str:
        """From its spec."""
        return self._task.name

    @property
    def update(self) -> TaskUpdate:
        """The latest word on it."""
        return self._task.update

    @property
    def state(self) -> TaskState:
        """Where it stands."""
        return self._task.state

    def wait(self, timeout_s: float | None = None) -> TaskUpdate:
        """Return the task's end, whichever it is. Raises TimeoutError, else as the async face."""
        return self._loop.run(self._task.wait, timeout_s)

    def wait_running(self, timeout_s: float | None = None) -> TaskUpdate:
        """Return once it runs or has FINISHED. Raises TaskFailed, TimeoutError."""
        return self._loop.run(self._task.wait_running, timeout_s)

    def result(self, timeout_s: float | None = None) -> bytes:
        """Return the finished task's result value. Raises TaskFailed, TimeoutError."""
        return self._loop.run(self._task.result, timeout_s)

    def kill(self, grace_s: float | None = None) -> None:
        """Ask for its end. Idempotent."""
        self._loop.run(lambda: self._task.kill(grace_s))

    def changes(self) -> Iterator[TaskUpdate]:
        """Yield where it stands now, then each change, until after its end."""
        return self._loop.iterate(self._task.changes())

    def logs(
        self, stream: StreamName = "stdout", *, follow: bool = False, tail_bytes: int | None = None
    ) -> Iterator[LogPiece]:
        """Yield its log in pieces."""
        return self._loop.iterate(self._task.logs(stream, follow=follow, tail_bytes=tail_bytes))


class HeldOffer:
    """Resources of one agent, held for this framework; see `client.offers.HeldOffer`."""

    def __init__(self, loop: _Loop, offer: AsyncHeldOffer) -> None:
        self._loop = loop
        self.held = offer

    def __repr__(self) -> str:
        return repr(self.held)

    @property
    def agent_id(self) -> AgentId:
        """Whose resources these are."""
        return self.held.agent_id

    @property
    def agent_name(self) -> str:
        """The agent's name for people."""
        return self.held.agent_name

    @property
    def resources(self) -> Resources:
        """What is offered."""
        return self.held.resources

    @property
    def attributes(self) -> Attributes:
        """The agent's facts."""
        return self.held.attributes

    def accept(self, tasks: Sequence[Submittable], refuse_s: float = REFUSE_DEFAULT_S) -> list[Task]:
        """Launch tasks on it. Raises OfferGone, SpecError."""
        made = self._loop.run(lambda: self.held.accept(tasks, refuse_s))
        return [Task(self._loop, task) for task in made]

    def decline(self, refuse_s: float = REFUSE_DEFAULT_S) -> None:
        """Give it back."""
        self._loop.run(lambda: self.held.decline(refuse_s))


class Framework:
    """A connected framework; see `client.framework.Framework`, whose verbs these are."""

    def __init__(self, loop: _Loop, framework: async_framework.Framework) -> None:
        self._loop = loop
        self._framework = framework

    @property
    def id(self) -> FrameworkId:
        """Its identity."""
        return self._framework.id

    def submit(self, what: Submittable, *, key: str | None = None, **options: Unpack[TaskOptions]) -> Task:
        """Submit one task."""
        return Task(self._loop, self._loop.run(lambda: self._framework.submit(what, key=key, **options)))

    def submit_many(self, whats: Sequence[Submittable], *, keys: Sequence[str] | None = None) -> list[Task]:
        """Submit many tasks in as few messages as possible."""
        made = self._loop.run(lambda: self._framework.submit_many(whats, keys=keys))
        return [Task(self._loop, task) for task in made]

    def tasks(self) -> list[Task]:
        """Return all tasks that have not ended, also those of an earlier run."""
        return [Task(self._loop, task) for task in self._loop.run(self._framework.tasks)]

    def upload(self, content: bytes | str | Path) -> BlobId:
        """Bring a module or file to the master."""
        return self._loop.run(lambda: self._framework.upload(content))

    def offers(self) -> Iterator[HeldOffer]:
        """Yield offers as they come."""
        for offer in self._loop.iterate(self._framework.offers()):
            yield HeldOffer(self._loop, offer)

    def accept(
        self, offers: Sequence[HeldOffer], tasks: Sequence[Submittable], refuse_s: float = REFUSE_DEFAULT_S
    ) -> list[Task]:
        """Launch tasks on offers of one agent. Raises OfferGone, SpecError."""
        held = [offer.held for offer in offers]
        made = self._loop.run(lambda: self._framework.accept(held, tasks, refuse_s))
        return [Task(self._loop, task) for task in made]

    def decline(self, offers: Sequence[HeldOffer], refuse_s: float = REFUSE_DEFAULT_S) -> None:
        """Give offers back."""
        held = [offer.held for offer in offers]
        self._loop.run(lambda: self._framework.decline(held, refuse_s))

    def revive(self) -> None:
        """Forget all filters and make offers again."""
        self._loop.run(self._framework.revive)

    def suppress(self) -> None:
        """Make no offers until `revive`."""
        self._loop.run(self._framework.suppress)

    def teardown(self) -> None:
        """Remove the framework: its tasks are killed. The session ends with it."""
        self._loop.run(self._framework.teardown)


class Operator:
    """A connected operator; see `client.operator.Operator`, whose verbs these are."""

    def __init__(self, loop: _Loop, operator: async_operator.Operator) -> None:
        self._loop = loop
        self._operator = operator

    def query(self, kind: str, **args: Any) -> Answer:
        """Return the rows of a listing."""
        return self._loop.run(lambda: self._operator.query(kind, **args))

    def drain(self, agent_id: str, *, undo: bool = False) -> None:
        """Give the agent no new tasks and move its tasks away, or let it work again."""
        self._loop.run(lambda: self._operator.drain(agent_id, undo=undo))

    def forget(self, agent_id: str) -> None:
        """Declare an agent gone for good."""
        self._loop.run(lambda: self._operator.forget(agent_id))

    def kill(self, task_ids: Sequence[TaskId], *, grace_s: float | None = None) -> None:
        """Ask for the end of tasks of any framework."""
        self._loop.run(lambda: self._operator.kill(task_ids, grace_s=grace_s))

    def logs(
        self,
        task_id: TaskId,
        stream: StreamName = "stdout",
        *,
        follow: bool = False,
        tail_bytes: int | None = None,
        attempt: int = 0,
    ) -> Iterator[LogPiece]:
        """Yield a task's log in pieces."""
        return self._loop.iterate(
            self._operator.logs(task_id, stream, follow=follow, tail_bytes=tail_bytes, attempt=attempt)
        )


@contextmanager
def connect_framework(
    url: str | None = None,
    *,
    id: str | None = None,
    name: str = "",
    weight: float = 1.0,
    role: str = "",
    offers: bool = False,
    failover_timeout_s: float | None = None,
    insecure: bool = False,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    on_connection: ConnectionCallback | None = None,
    plugins: Plugins | None = None,
) -> Iterator[Framework]:
    """Connect as a framework for as long as the block runs. As `client.connect_framework`.

    `on_connection` is called on the background thread.
    """
    connecting = async_framework.connect_framework(
        url,
        id=id,
        name=name,
        weight=weight,
        role=role,
        offers=offers,
        failover_timeout_s=failover_timeout_s,
        insecure=insecure,
        connect_timeout_s=connect_timeout_s,
        on_connection=on_connection,
        plugins=plugins,
    )
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(connecting) as framework:
        yield Framework(_Loop(portal), framework)


@contextmanager
def connect_operator(
    url: str | None = None,
    *,
    insecure: bool = False,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    on_connection: ConnectionCallback | None = None,
    plugins: Plugins | None = None,
) -> Iterator[Operator]:
    """Connect as an operator for as long as the block runs. As `client.connect_operator`."""
    connecting = async_operator.connect_operator(
        url,
        insecure=insecure,
        connect_timeout_s=connect_timeout_s,
        on_connection=on_connection,
        plugins=plugins,
    )
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(connecting) as operator:
        yield Operator(_Loop(portal), operator)
