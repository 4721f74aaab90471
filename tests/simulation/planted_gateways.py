"""Bugs of gateways of the kind that people make, as in `planted.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edgerm_core.gateway import events as gateway_events
from edgerm_core.gateway import state as gateway_state
from edgerm_core.gateway.custody import Custody, Held
from edgerm_core.gateway.mailbox import Mail
from edgerm_core.gateway.standin import StandIn
from edgerm_core.gateway.state import Gateway
from edgerm_core.gateway.uplink import Uplink
from edgerm_core.messages import Acknowledge, Kill, Launch, Refused, Register, StatusUpdate
from edgerm_core.testing.simulator.swarm import GatewayKind, Kind

from .planted import Patch, Planted


def handed_on_once(patch: Patch) -> None:
    original = Gateway._post

    def _post(self: Gateway, standin: StandIn, message: Mail) -> bool:
        if isinstance(message, Launch | Kill):
            handed_on = self.__dict__.setdefault("handed_on", set())
            key = standin.number, type(message), message.task_id, message.attempt
            if key in handed_on:
                return True
            handed_on.add(key)
        return original(self, standin, message)

    patch.setattr(Gateway, "_post", _post)
    patch.setitem(gateway_state._FROM_MASTER, Kill, _post)


def mail_of_an_older_process(patch: Patch) -> None:
    original = Gateway._register

    def _register(self: Gateway, device: Any, register: Register) -> None:
        before = self.standins.get(register.info.id)
        original(self, device, register)
        standin = self.standins.get(register.info.id)
        if before is not None and standin is not None and standin is not before:
            for message, _ in list(before.mailbox._mail.values()):
                if isinstance(message, Launch | Kill):
                    self._post(standin, message)

    patch.setattr(Gateway, "_register", _register)


def mail_kept_when_a_device_has_moved(patch: Patch) -> None:
    original = Gateway._drop

    def _drop(self: Gateway, standin: StandIn, *rest: Any, **more: Any) -> None:
        kept = self.__dict__.setdefault("kept", {})
        kept[standin.id] = [m for m, _ in standin.mailbox._mail.values() if isinstance(m, Launch | Kill)]
        original(self, standin, *rest, **more)

    register = Gateway._register

    def _register(self: Gateway, device: Any, message: Register) -> None:
        register(self, device, message)
        standin = self.standins.get(message.info.id)
        if standin is not None:
            for mail in self.__dict__.setdefault("kept", {}).pop(standin.id, ()):
                self._post(standin, mail)

    patch.setattr(Gateway, "_drop", _drop)
    patch.setattr(Gateway, "_register", _register)


def custody_dropped_at_reconnect(patch: Patch) -> None:
    original = Gateway._on_uplink_opened

    def _on_uplink_opened(self: Gateway, event: gateway_events.UplinkOpened) -> None:
        for agent_id in self.custody.agents():
            for (task_id, attempt), held in list(self.custody.of(agent_id).items()):
                # "The devices register again, and say how their tasks are."
                self._release(agent_id, Acknowledge(task_id, attempt, held[-1].update.seq))
        original(self, event)

    handlers: dict[Any, Any] = gateway_state._HANDLERS
    patch.setitem(handlers, gateway_events.UplinkOpened, _on_uplink_opened)


def acknowledged_before_the_disk(patch: Patch) -> None:
    original = Gateway._take_custody

    def _take_custody(self: Gateway, standin: StandIn, update: StatusUpdate) -> None:
        original(self, standin, update)
        self._post(standin, Acknowledge(update.task_id, update.attempt, update.seq))

    patch.setattr(Gateway, "_take_custody", _take_custody)


def acknowledged_while_passing(patch: Patch) -> None:
    original = Gateway._device_update

    def _device_update(self: Gateway, standin: StandIn, update: StatusUpdate) -> None:
        original(self, standin, update)
        if self.uplink.is_open:
            self._post(standin, Acknowledge(update.task_id, update.attempt, update.seq))

    patch.setitem(gateway_state._FROM_DEVICE, StatusUpdate, _device_update)


def change_left_out(patch: Patch) -> None:
    patch.setattr(StandIn, "changes", lambda self, inventory: None)


def replacement_passed_on(patch: Patch) -> None:
    def _master_refused(self: Gateway, standin: StandIn, message: Refused) -> None:
        assert standin.channel is not None
        self.uplink.channel_closed(standin.channel)
        self._drop(standin, message.message, message)

    patch.setitem(gateway_state._FROM_MASTER, Refused, _master_refused)


def release_not_written(patch: Patch) -> None:
    patch.setattr(
        Gateway,
        "_release",
        lambda self, agent_id, message: self.custody.release(
            agent_id, (message.task_id, message.attempt), message.seq
        ),
    )


def device_left_out_of_heartbeats(patch: Patch) -> None:
    original = Uplink.heard

    def heard(self: Uplink, standin: StandIn) -> None:
        if standin.number % 2:
            original(self, standin)

    patch.setattr(Uplink, "heard", heard)


def custody_of_the_absent_kept(patch: Patch) -> None:
    original = Uplink.opened

    def opened(self: Uplink, heartbeat_s: float, max_message_bytes: int) -> None:
        original(self, heartbeat_s, max_message_bytes)
        for channel in list(self._custodies):
            self._close(channel, "the device is not here")

    patch.setattr(Uplink, "opened", opened)
    patch.setattr(Uplink, "hand_over", lambda self, agent_id: None)


def ends_dropped_for_room(patch: Patch) -> None:
    original = Custody._add

    def _add(self: Custody, agent_id: Any, held: Held) -> None:
        original(self, agent_id, held)
        update = held.update
        self._overtaken[agent_id, (update.task_id, update.attempt), update.seq] = None

    patch.setattr(Custody, "_add", _add)


def _planted(
    story: str,
    plant: Callable[[Patch], None],
    *gateway_kinds: GatewayKind,
    kinds: tuple[Kind, ...] = (),
    pace_s: tuple[float, float] = (10.0, 60.0),
) -> Planted:
    return Planted(story, kinds, plant, pace_s, True, "first-fit", gateway_kinds)


PLANTED: Final[dict[str, Planted]] = {
    "handed-on-once": _planted(
        "an order that was handed on is not handed on again, although it may have been lost",
        handed_on_once,
        "radio-reset",
        pace_s=(2.0, 10.0),
    ),
    "mail-of-an-older-process": _planted(
        "a device that was restarted gets the orders for the process before",
        mail_of_an_older_process,
        "device-restart",
        "sleep",
        "radio-reset",
        kinds=("kill-tasks", "drain"),
        pace_s=(5.0, 20.0),
    ),
    "mail-kept-after-roaming": _planted(
        "a device that comes back gets the orders that waited when it went",
        mail_kept_when_a_device_has_moved,
        "move",
        "device-restart",
        "uplink-cut",
    ),
    "custody-dropped-at-reconnect": _planted(
        "what is in custody is forgotten when the master is back, not when it has it",
        custody_dropped_at_reconnect,
        "uplink-cut",
        "uplink-reset",
    ),
    "acknowledged-before-the-disk": _planted(
        "a device may forget an update before the gateway's disk has it",
        acknowledged_before_the_disk,
        "uplink-cut",
    ),
    "acknowledged-while-passing": _planted(
        "a device may forget an update that is on its way to the master",
        acknowledged_while_passing,
    ),
    "change-left-out": _planted(
        "what changes on a device while the uplink is down is never told",
        change_left_out,
        "uplink-cut",
        kinds=("sick", "unplug"),
    ),
    "replacement-passed-on": _planted(
        "a device that moved is told to stop for good, as if it had been replaced",
        replacement_passed_on,
        "move",
    ),
    "release-not-written": _planted(
        "custody that was released comes back when the gateway restarts",
        release_not_written,
        "uplink-cut",
    ),
    "left-out-of-heartbeats": _planted(
        "a device that speaks and says nothing new is not named in its gateway's heartbeat",
        device_left_out_of_heartbeats,
    ),
    "custody-of-the-absent": _planted(
        "what is in custody of a device that has gone waits until it is back",
        custody_of_the_absent_kept,
        "move",
        "uplink-cut",
        "kill-gateway",
    ),
    "ends-dropped-for-room": _planted(
        "an end goes when there is no room in custody, as if a later update had overtaken it",
        ends_dropped_for_room,
        "uplink-cut",
    ),
}
"""By name."""
