"""Offers: taken, given back, rescinded, void after a reconnect."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from edgerm_core.client import HeldOffer, OfferGone
from edgerm_core.client.offers import OfferBook
from edgerm_core.errors import SpecError
from edgerm_core.ids import AgentId, OfferId, TaskId
from edgerm_core.limits import MAX_OFFERS_PER_FRAMEWORK
from edgerm_core.messages import (
    Accept,
    Decline,
    Failed,
    Offers,
    Rescind,
    Revive,
    Submitted,
    Suppress,
    TaskUpdate,
)
from edgerm_core.offers import Offer
from edgerm_core.resources import Resources
from edgerm_core.tasks import TaskState
from tests.core.client.conftest import HELLO, WAIT_S, ScriptedMaster, connected, doing

pytestmark = pytest.mark.anyio


def offer(offer_id: int, agent: str = "a1") -> Offer:
    return Offer(OfferId(offer_id), AgentId(agent), agent, Resources.parse("cpus:4;mem:1024"))


async def take(framework: Any, count: int) -> list[HeldOffer]:
    found: list[HeldOffer] = []
    with anyio.fail_after(WAIT_S):
        async for held in framework.offers():
            found.append(held)
            if len(found) == count:
                break
    return found


async def test_tasks_are_launched_on_several_offers_of_one_agent(master: ScriptedMaster) -> None:
    async with connected(master, offers=True) as (framework, peer):
        assert framework.info.offers
        await peer.send(Offers((offer(1), offer(2))))
        held = await take(framework, 2)
        assert held[0].resources == Resources.parse("cpus:4;mem:1024")
        async with doing(lambda: framework.accept(held, [HELLO, HELLO], refuse_s=2)) as call:
            request = await peer.expect(Accept)
            assert (request.offer_ids, request.refuse_s, len(request.specs)) == ((1, 2), 2, 2)
            await peer.send(
                Submitted(request.request_id, ((TaskId(5),), (TaskId(6),))),
                TaskUpdate(TaskId(6), 1, TaskState.RUNNING),
            )
        made = await call.value()
        assert [t.id for t in made] == [5, 6]
        await made[1].wait_running()
        with pytest.raises(OfferGone, match="answered already"):
            await held[0].accept([HELLO])


async def test_offers_of_different_agents_are_not_mixed(master: ScriptedMaster) -> None:
    async with connected(master, offers=True) as (framework, peer):
        await peer.send(Offers((offer(1, "a1"), offer(2, "a2"))))
        held = await take(framework, 2)
        with pytest.raises(SpecError, match="offers of one agent"):
            await framework.accept(held, [HELLO])
        assert not held[0].gone


async def test_a_declined_offer_leaves_its_filter(master: ScriptedMaster) -> None:
    async with connected(master, offers=True) as (framework, peer):
        await peer.send(Offers((offer(1),)))
        [held] = await take(framework, 1)
        await held.decline(refuse_s=60)
        assert await peer.expect(Decline) == Decline((OfferId(1),), 60)
        await held.decline()
        await peer.expect_nothing()


async def test_a_rescinded_offer_vanishes_unseen_or_fails_to_be_accepted(master: ScriptedMaster) -> None:
    async with connected(master, offers=True) as (framework, peer):
        await peer.send(Offers((offer(1),)))
        [seen] = await take(framework, 1)
        await peer.send(
            Offers((offer(2),)), Rescind((OfferId(1), OfferId(2), OfferId(77))), Offers((offer(3),))
        )
        [third] = await take(framework, 1)
        assert third.id == 3
        with pytest.raises(OfferGone, match="offer 1 of agent a1 is gone: it was rescinded"):
            await seen.accept([HELLO])
        await peer.expect_nothing()


@pytest.mark.parametrize("code", ["offer-invalid", "agent-away"])
async def test_the_master_says_that_an_offer_is_gone(master: ScriptedMaster, code: str) -> None:
    async with connected(master, offers=True) as (framework, peer):
        await peer.send(Offers((offer(1),)))
        [held] = await take(framework, 1)
        async with doing(lambda: held.accept([HELLO])) as call:
            request = await peer.expect(Accept)
            await peer.send(Failed(request.request_id, code, "the offer has expired"))
        with pytest.raises(OfferGone, match="has expired"):
            await call.value()


async def test_a_lost_connection_voids_all_offers(master: ScriptedMaster) -> None:
    async with connected(master, offers=True) as (framework, peer):
        await peer.send(Offers((offer(1), offer(2))))
        [held] = await take(framework, 1)
        await peer.drop()
        peer = await master.accept_framework()
        await peer.send(Offers((offer(3),)))
        assert (await take(framework, 1))[0].id == 3
        with pytest.raises(OfferGone, match="connection it came over was lost"):
            await held.accept([HELLO])


async def test_suppressing_outlives_a_reconnect_until_revived(master: ScriptedMaster) -> None:
    async with connected(master, offers=True) as (framework, peer):
        await framework.suppress()
        await peer.expect(Suppress)
        await peer.drop()
        peer = await master.accept_framework()
        await peer.expect(Suppress)
        await framework.revive()
        await peer.expect(Revive)
        await peer.drop()
        peer = await master.accept_framework()
        await peer.expect_nothing()


async def test_a_framework_that_asked_for_no_offers_is_told_so(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, _):
        with pytest.raises(SpecError, match="offers=True"):
            await take(framework, 1)


async def test_the_book_of_offers_is_bounded() -> None:
    book = OfferBook()
    framework: Any = None
    for i in range(MAX_OFFERS_PER_FRAMEWORK):
        assert book.add(HeldOffer(framework, offer(i)))
    assert not book.add(HeldOffer(framework, offer(99_999)))
