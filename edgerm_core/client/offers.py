"""Offers as a framework holds them: waiting to be looked at, answered, or gone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import anyio

from edgerm_core.attributes import Attributes
from edgerm_core.client.specs import Submittable
from edgerm_core.client.tasks import Task
from edgerm_core.errors import EdgermError, OfferGone
from edgerm_core.ids import AgentId, OfferId
from edgerm_core.limits import MAX_OFFERS_PER_FRAMEWORK, REFUSE_DEFAULT_S
from edgerm_core.offers import Offer
from edgerm_core.resources import Device, Resources

if TYPE_CHECKING:
    from edgerm_core.client.framework import Framework


class HeldOffer:
    """Resources of one agent, held for this framework until it answers or they are rescinded.

    Attributes:
        gone: why it cannot be answered any more; empty while it can.
    """

    def __init__(self, framework: Framework, offer: Offer) -> None:
        self.gone = ""
        self._framework = framework
        self._offer = offer

    def __repr__(self) -> str:
        return f"<HeldOffer {self.id} of {self.agent_name or self.agent_id}: {self.resources}>"

    @property
    def id(self) -> OfferId:
        """Given by the master."""
        return self._offer.id

    @property
    def agent_id(self) -> AgentId:
        """Whose resources these are."""
        return self._offer.agent_id

    @property
    def agent_name(self) -> str:
        """The agent's name for people."""
        return self._offer.agent_name

    @property
    def resources(self) -> Resources:
        """What is offered; device slots included."""
        return self._offer.resources

    @property
    def attributes(self) -> Attributes:
        """The agent's facts."""
        return self._offer.attributes

    @property
    def devices(self) -> tuple[Device, ...]:
        """The offered device instances."""
        return self._offer.devices

    @property
    def executors(self) -> tuple[str, ...]:
        """Names of the executors that work there."""
        return self._offer.executors

    async def accept(self, tasks: Sequence[Submittable], refuse_s: float = REFUSE_DEFAULT_S) -> list[Task]:
        """Launch tasks on it; see `Framework.accept`, which also takes several offers of an agent."""
        return await self._framework.accept([self], tasks, refuse_s)

    async def decline(self, refuse_s: float = REFUSE_DEFAULT_S) -> None:
        """Give it back; see `Framework.decline`."""
        await self._framework.decline([self], refuse_s)


class OfferBook:
    """The offers that are out to this framework. Never more than `MAX_OFFERS_PER_FRAMEWORK`."""

    def __init__(self) -> None:
        self._out: dict[OfferId, HeldOffer] = {}
        self._waiting: OrderedDict[OfferId, HeldOffer] = OrderedDict()
        self._arrived = anyio.Event()
        self._failure: EdgermError | None = None

    def add(self, offer: HeldOffer) -> bool:
        """Take a new offer; return False if the book is full and it must be declined."""
        if len(self._out) >= MAX_OFFERS_PER_FRAMEWORK:
            return False
        self._out[offer.id] = self._waiting[offer.id] = offer
        self._wake()
        return True

    def remove(self, offer_id: OfferId, why: str) -> None:
        """Note that an offer is gone; it vanishes from the iterator. Idempotent."""
        offer = self._out.pop(offer_id, None)
        self._waiting.pop(offer_id, None)
        if offer is not None:
            offer.gone = why

    def clear(self, why: str) -> None:
        """Note that all offers are gone."""
        for offer_id in list(self._out):
            self.remove(offer_id, why)

    def use(self, offers: Sequence[HeldOffer]) -> tuple[OfferId, ...]:
        """Take offers out of the book to answer them; return their ids.

        Raises:
            OfferGone: if one of them is gone; the others stay.
        """
        for offer in offers:
            if offer.gone:
                raise OfferGone(
                    f"offer {offer.id} of agent {offer.agent_name or offer.agent_id} is gone: {offer.gone}"
                )
        for offer in offers:
            self.remove(offer.id, "it was answered already")
        return tuple(offer.id for offer in offers)

    def fail(self, error: EdgermError) -> None:
        """Note that no offers will come any more."""
        self._failure = error
        self.clear(str(error))
        self._wake()

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = anyio.Event()

    async def __aiter__(self) -> AsyncIterator[HeldOffer]:
        """Yield each offer once, to one of the iterators, while it can still be answered."""
        while True:
            if self._waiting:
                yield self._waiting.popitem(last=False)[1]
            elif self._failure is not None:
                raise self._failure
            else:
                await self._arrived.wait()
