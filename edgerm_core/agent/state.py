"""The agent as a state machine: told events, it answers with effects, and does nothing else.

No clock, no socket, no disk, no randomness: time and jitter come in with the events, and what has to be
done goes out as effects. Given the same events at the same times it does the same, which is what the
simulator and the tests build on. Its parts share one `Turn`:

    session.Session     whether a master listens, and how to get there
    runs.Runs           what runs here, and what the master has been told of it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from edgerm_core.agent import events
from edgerm_core.agent.effects import Effect, Send, WriteRecord
from edgerm_core.agent.records import MasterKnown, Record
from edgerm_core.agent.recovery import Recovered, snapshot
from edgerm_core.agent.runs import Runs
from edgerm_core.agent.session import Session, SessionState
from edgerm_core.agent.turn import Turn
from edgerm_core.agents import AgentInfo
from edgerm_core.messages import (
    OLDEST_PROTOCOL_VERSION,
    PROTOCOL_VERSION,
    Acknowledge,
    AnyMessage,
    HeartbeatAck,
    Inventory,
    Kill,
    Launch,
    RefusalCode,
    Refused,
    Register,
    Registered,
)


class Agent:
    """The agent.

    Parameters:
        info: what it has.
        boot_id: changes when the machine starts.
        incarnation: changes when the agent process starts.
        masters: how many masters the config names.
        max_tasks: attempts that may be here at the same time.
        recovered: what the records of an earlier agent process say.

    Attributes:
        info: what it has now.
        master_id: whose orders the runs are; empty before the first registration.
    """

    def __init__(
        self,
        info: AgentInfo,
        *,
        boot_id: str,
        incarnation: str,
        masters: int,
        max_tasks: int,
        recovered: Recovered | None = None,
    ) -> None:
        self._recovered = recovered if recovered is not None else Recovered()
        self._boot_id = boot_id
        self._incarnation = incarnation
        self.info = info
        self._told = info
        self.master_id = self._recovered.master_id
        self.turn = Turn()
        self.runs = Runs(self.turn, max_tasks)
        self.session = Session(self.turn, masters, self._greeting)

    def handle(self, event: events.Event, now: float) -> list[Effect]:
        """Take one event and return what is to be done about it, in order.

        The only way to change the agent's state.

        Parameters:
            now: seconds; not less than in the call before.
        """
        assert now >= self.turn.now, "time goes backwards"
        self.turn.now = now
        _HANDLERS[type(event)](self, event)
        effects, self.turn.effects = self.turn.effects, []
        return effects

    def next_deadline(self) -> float | None:
        """Return when a Ticked is due at the latest; None: nothing happens by itself."""
        return self.turn.deadlines.next()

    def records(self) -> Iterable[Record]:
        """Yield records that say the same as all that were written so far."""
        return snapshot(self.runs.known.values(), self.master_id)

    # --- events -------------------------------------------------------------------------------

    def _on_began(self, event: events.Began) -> None:
        self.runs.take_up(self._recovered.runs.values())
        if self.runs.disowned:
            self.session.hold()
        self.session.connect()

    def _on_ticked(self, event: events.Ticked) -> None:
        for name, task_id, attempt in self.turn.deadlines.pop_due(self.turn.now):
            if task_id:
                self.runs.due(name, (task_id, attempt))  # type: ignore[arg-type]
            else:
                self.session.due(name)

    def _on_inventory_changed(self, event: events.InventoryChanged) -> None:
        self.info = event.info
        if self.session.registered:
            self._tell_changes()

    def _tell_changes(self) -> None:
        """Tell the master what is different from what it was told last."""
        changed: dict[str, Any] = {
            field: getattr(self.info, field)
            for field in ("totals", "attributes", "devices", "executors")
            if getattr(self.info, field) != getattr(self._told, field)
        }
        self._told = self.info
        if changed:
            self.turn.emit(Send(Inventory(**changed)))

    def _on_connected(self, event: events.Connected) -> None:
        if self.session.is_current(event.session):
            self.session.connected(event.peer)

    def _on_disconnected(self, event: events.Disconnected) -> None:
        if self.session.is_current(event.session):
            self.session.disconnected(event.problem, event.jitter)
            if self.runs.listening:
                self.runs.master_left()

    def _on_frame_sent(self, event: events.FrameSent) -> None:
        if self.session.is_current(event.session):
            self.session.sent()

    def _on_frame_received(self, event: events.FrameReceived) -> None:
        if not self.session.is_current(event.session):
            return
        self.session.heard()
        for message in event.messages:
            self._on_message(message)

    def _on_message(self, message: AnyMessage) -> None:
        """Take one message. Blobs and logs pass beside the state machine, the rest is not for agents."""
        if isinstance(message, Refused):
            if self.session.state in (SessionState.GREETING, SessionState.REGISTERED):
                if message.code == RefusalCode.REMOVED:
                    self._disown()
                self.session.on_refused(message)
        elif isinstance(message, Registered):
            self._on_registered(message)
        elif not self.session.registered:
            # Of a session that is being closed, or before the master has taken us in: it comes again.
            return
        elif isinstance(message, Launch):
            self.runs.launch(message, self.info)
        elif isinstance(message, Acknowledge):
            self.runs.acknowledge(message)
        elif isinstance(message, Kill):
            self.runs.kill(message)
        elif isinstance(message, HeartbeatAck):
            self.session.on_heartbeat_ack(message)
            self.runs.master_is_away(message.away_s)

    def _on_registered(self, message: Registered) -> None:
        if not self.session.on_registered(message):
            return
        if message.master_id != self.master_id:
            foreign = self.master_id != "" and bool(self.runs.known)
            self.master_id = message.master_id
            self.turn.emit(WriteRecord(MasterKnown(message.master_id)))
            if foreign:
                # Other books number their tasks anew: ours would be taken for theirs.
                self._disown()
                self.session.close("the master has other books than before; its tasks are being stopped")
                return
        # Something may have changed while the registration was on its way.
        self._tell_changes()
        self.runs.master_came(message.away_s)

    def _disown(self) -> None:
        self.runs.disown()
        if self.runs.disowned:
            self.session.hold()

    def _run_event(self, event: Any) -> None:
        _RUN_HANDLERS[type(event)](self.runs, event)
        if self.session.held and not self.runs.disowned:
            self.session.let_go()

    def _greeting(self) -> Register:
        self._told = self.info
        return Register(
            (OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION),
            self.info,
            self._boot_id,
            self._incarnation,
            self.runs.reports(),
        )


_RUN_HANDLERS: Final[dict[type[Any], Callable[[Runs, Any], None]]] = {
    events.RunFetching: Runs.on_fetching,
    events.RunProgress: Runs.on_progress,
    events.RunStarted: Runs.on_started,
    events.RunRecovered: Runs.on_recovered,
    events.RunNotStarted: Runs.on_not_started,
    events.RunCancelled: Runs.on_cancelled,
    events.RunLost: Runs.on_lost,
    events.RunEnded: Runs.on_ended,
}

_HANDLERS: Final[dict[type[Any], Callable[[Agent, Any], None]]] = {
    events.Began: Agent._on_began,
    events.Ticked: Agent._on_ticked,
    events.InventoryChanged: Agent._on_inventory_changed,
    events.Connected: Agent._on_connected,
    events.Disconnected: Agent._on_disconnected,
    events.FrameReceived: Agent._on_frame_received,
    events.FrameSent: Agent._on_frame_sent,
    **dict.fromkeys(_RUN_HANDLERS, Agent._run_event),
}
