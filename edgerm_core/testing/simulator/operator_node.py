"""An operator at the command line: drains, forgets, kills, asks; repeats what was not answered."""

from __future__ import annotations

import msgspec

from edgerm_core.ids import AgentId, TaskId
from edgerm_core.messages import (
    Answer,
    AnyMessage,
    Done,
    Drain,
    Failed,
    Forget,
    Greet,
    Greeted,
    KillTasks,
    Message,
    Query,
    RefusalCode,
)
from edgerm_core.testing.simulator.checks import Checks
from edgerm_core.testing.simulator.client_node import ClientNode
from edgerm_core.testing.simulator.network import Link
from edgerm_core.testing.simulator.world import Failure, World

Request = Query | Drain | Forget | KillTasks


class OperatorNode(ClientNode):
    """The operator.

    Attributes:
        waiting: requests that have not been answered, in order.
    """

    def __init__(self, world: World, link: Link, checks: Checks) -> None:
        super().__init__(world, "op", link)
        self.checks = checks
        self.waiting: dict[int, Request] = {}
        self._next_request = 1

    def ask(self, request: Request) -> None:
        """Ask, and repeat it until it is answered."""
        self.waiting[self._next_request] = msgspec.structs.replace(request, request_id=self._next_request)
        self._next_request += 1
        if self.connected:
            self.say(self.waiting[self._next_request - 1])

    def drain(self, agent: str, *, undo: bool = False) -> None:
        """Drain an agent, or let it work again."""
        self.ask(Drain(0, AgentId(agent), undo))

    def forget(self, agent: str) -> None:
        """Declare an agent gone."""
        self.ask(Forget(0, AgentId(agent)))

    def kill(self, task_id: int) -> None:
        """Kill a task."""
        self.checks.kill_wanted(task_id)
        self.ask(KillTasks(0, (TaskId(task_id),)))

    def query(self, kind: str, task_id: int) -> None:
        """Ask for a listing or an explanation."""
        args = {"task": f"t{task_id}"} if kind in ("explain", "story") else {}
        self.ask(Query(0, kind, args))

    def greeting(self) -> Message:
        """See `ClientNode.greeting`."""
        return Greet((1, 1))

    def took_in(self, message: AnyMessage) -> bool:
        """See `ClientNode.took_in`."""
        return isinstance(message, Greeted)

    def begin_session(self) -> None:
        """See `ClientNode.begin_session`."""
        self.say(*self.waiting.values())

    @property
    def owed(self) -> bool:
        """See `ClientNode.owed`."""
        return bool(self.waiting)

    def on_message(self, message: AnyMessage) -> None:
        """See `ClientNode.on_message`."""
        if not isinstance(message, Answer | Done | Failed):
            raise Failure(f"op: was sent {message}")
        request = self.waiting.pop(message.request_id, None)
        if isinstance(message, Failed) and message.code not in (RefusalCode.NOT_FOUND,):
            raise Failure(f"op: {request} failed: {message}")
        if isinstance(request, KillTasks) and isinstance(message, Done):
            for task_id in request.task_ids:
                self.checks.kill_promised(int(task_id))
