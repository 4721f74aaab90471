"""What the gateway knows of one device, and answers in its place."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import msgspec

from edgerm_core.gateway.custody import Held, Key
from edgerm_core.gateway.mailbox import Mailbox
from edgerm_core.ids import AgentId, SessionId
from edgerm_core.messages import Acknowledge, Inventory, Register, StatusUpdate, TaskReport
from edgerm_core.tasks import TaskState

_INVENTORY = ("totals", "attributes", "devices", "executors")
"""What may change of an agent while it is registered."""


class Upstream(enum.IntEnum):
    """How far the master knows of the device."""

    CLOSED = 1
    """Not at all; also while it waits for its turn."""
    OPENING = 2
    """Its Register is on its way."""
    OPEN = 3
    """The master has taken it in, and listens."""


class StandIn:
    """One device.

    Parameters:
        number: another one for every stand-in there ever was.
        register: what it said of itself.

    Attributes:
        session: its connection, or None.
        registered_at: when it last registered here.
        heard_at: when it last said anything.
        heartbeat_s, lease_s: its cadence.
        mailbox: what waits for it.
        tasks: what it runs, or has ended and nobody upstream has acknowledged, by attempt.
        passing: its updates on their way to the master, not in custody, by attempt and in order.
        channel: on which the master knows it.
        told: what the registration on that channel said that it has.
        logs: request ids of the log streams under way.
    """

    def __init__(self, number: int, register: Register, heartbeat_s: float, lease_s: float) -> None:
        self.number = number
        self._register = register
        self.session: SessionId | None = None
        self.max_message_bytes = 0
        self.peer = ""
        self.registered_at = 0.0
        self.heard_at = 0.0
        self.heartbeat_s = heartbeat_s
        self.lease_s = lease_s
        self.mailbox = Mailbox()
        self.tasks: dict[Key, TaskReport] = {}
        self.passing: dict[Key, list[StatusUpdate]] = {}
        self.upstream = Upstream.CLOSED
        self.channel: int | None = None
        self.told = register.info
        self.logs: set[int] = set()

    @property
    def id(self) -> AgentId:
        """The device's id as an agent."""
        return self._register.info.id

    @property
    def boot_id(self) -> str:
        """See `Register`."""
        return self._register.boot_id

    @property
    def incarnation(self) -> str:
        """See `Register`."""
        return self._register.incarnation

    def registers(self, register: Register, held: Mapping[Key, Sequence[Held]]) -> None:
        """Take what the device says of itself now.

        Parameters:
            held: its updates in custody. An end among them is news to the master that the device has
                forgotten, and is reported as if it had not.
        """
        self._register = register
        self.mailbox.launched.clear()
        self.tasks = {(report.task_id, report.attempt): report for report in register.tasks}
        for key, updates in held.items():
            last = updates[-1].update
            known = self.tasks.get(key)
            if last.state.terminal:
                self.tasks[key] = _report(last)
            elif known is not None and known.last_seq is not None:
                seq = max(known.last_seq, last.seq)
                self.tasks[key] = msgspec.structs.replace(known, last_seq=seq)

    def registration(self) -> Register:
        """Return what the device would say to the master if it registered now.

        That includes runs of which it has said nothing yet, since their Launch has only just gone to it.
        """
        launched = (
            TaskReport(*key, TaskState.STARTING)
            for key in self.mailbox.launched.items()
            if key not in self.tasks
        )
        return msgspec.structs.replace(
            self._register,
            tasks=(*self.tasks.values(), *launched),
            max_message_bytes=self.max_message_bytes,
        )

    def untold(self) -> Inventory | None:
        """Return what has changed since the registration on its channel; None: nothing."""
        info = self._register.info
        changed = {
            name: getattr(info, name)
            for name in _INVENTORY
            if getattr(info, name) != getattr(self.told, name)
        }
        return Inventory(**changed) if changed else None

    def changes(self, inventory: Inventory) -> None:
        """Something it has is different now."""
        changed = {name: value for name in _INVENTORY if (value := getattr(inventory, name)) is not None}
        info = msgspec.structs.replace(self._register.info, **changed)
        self._register = msgspec.structs.replace(self._register, info=info)

    def says(self, update: StatusUpdate) -> None:
        """A task stands elsewhere now."""
        key = (update.task_id, update.attempt)
        if self.mailbox.launched.get(update.task_id, 0) <= update.attempt:
            self.mailbox.launched.pop(update.task_id, None)
        known = self.tasks.get(key)
        if known is None or known.last_seq is None or known.last_seq <= update.seq:
            self.tasks[key] = _report(update)

    def acknowledged(self, message: Acknowledge) -> bool:
        """The master has the updates of an attempt up to a number; return whether the device waits for
        that."""
        key = (message.task_id, message.attempt)
        report = self.tasks.get(key)
        if report is not None and report.state.terminal and (report.last_seq or 0) <= message.seq:
            del self.tasks[key]
        before = self.passing.get(key, [])
        left = [update for update in before if update.seq > message.seq]
        if left:
            self.passing[key] = left
        else:
            self.passing.pop(key, None)
        return len(left) < len(before)

    def passing_count(self) -> int:
        """Return how many updates are on their way."""
        return sum(map(len, self.passing.values()))


def _report(update: StatusUpdate) -> TaskReport:
    return TaskReport(update.task_id, update.attempt, update.state, update.restarts, update.seq)
