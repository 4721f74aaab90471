"""Offers: free resources of one agent, held for one framework for a while."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec

from edgerm_core.attributes import Attributes
from edgerm_core.ids import AgentId, OfferId
from edgerm_core.resources import Device, Resources
from edgerm_core.values import Seconds


class OfferState(enum.IntEnum):
    """Where an offer stands. An offer counts as allocated while it is OUT, and works once."""

    OUT = 1
    ACCEPTED = 2
    DECLINED = 3
    RESCINDED = 4
    """Taken back: its agent went away, or it was not answered within `expires_s`."""


_S = OfferState
TRANSITIONS: Final[dict[OfferState, frozenset[OfferState]]] = {
    _S.OUT: frozenset({_S.ACCEPTED, _S.DECLINED, _S.RESCINDED}),
    _S.ACCEPTED: frozenset(),
    _S.DECLINED: frozenset(),
    _S.RESCINDED: frozenset(),
}


class Offer(msgspec.Struct, frozen=True, array_like=True):
    """What a framework sees of an offer.

    Attributes:
        id: names it in accept and decline.
        agent_id: whose resources these are.
        agent_name: for people.
        resources: what is offered; device slots included.
        attributes: the agent's facts.
        devices: the offered device instances.
        executors: names of the executors that work there.
        expires_s: seconds until it is rescinded.
    """

    id: Annotated[OfferId, msgspec.Meta(ge=1)]
    agent_id: AgentId
    agent_name: str
    resources: Resources
    attributes: Attributes = {}
    devices: tuple[Device, ...] = ()
    executors: tuple[str, ...] = ()
    expires_s: Seconds = 0.0
