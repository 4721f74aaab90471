"""A framework with its own placement: one task per agent, the preferred agents first.

    python examples/own_placement.py [COUNT] [ATTRIBUTE=VALUE]

It takes offers instead of having its tasks placed: it looks at what comes in for a moment, then
accepts the best offers, at most one per agent, and declines the others.
"""

import sys

import anyio

from edgerm_core.client import Framework, HeldOffer, OfferGone, Task, connect_framework, process, task
from edgerm_core.resources import Resources

NEEDS = "cpus:0.1;mem:16MiB"
LOOK_S = 1.0
"""How long to collect offers before choosing; long enough for every agent that is free to show up."""

NOT_AGAIN_S = 3600.0
"""Agents that have their task, or are of no use, are not offered again for this long."""


async def collect(framework: Framework) -> list[HeldOffer]:
    """Return the offers that come within LOOK_S; waits for the first one."""
    found: list[HeldOffer] = []
    with anyio.CancelScope() as scope:
        async for offer in framework.offers():
            found.append(offer)
            if len(found) == 1:
                scope.deadline = anyio.current_time() + LOOK_S
    return [offer for offer in found if not offer.gone]


def preferred(offer: HeldOffer, attribute: str, value: str) -> bool:
    return str(offer.attributes.get(attribute, "")) == value


async def place(framework: Framework, count: int, attribute: str, value: str) -> list[Task]:
    """Return `count` tasks, each on another agent; waits for further agents if there are too few."""
    placed: dict[str, Task] = {}
    while len(placed) < count:
        offers = await collect(framework)
        offers.sort(key=lambda offer: not preferred(offer, attribute, value))
        for offer in offers:
            if (
                len(placed) == count
                or offer.agent_id in placed
                or "process" not in offer.executors
                or not offer.resources.contains(Resources.parse(NEEDS))
            ):
                await offer.decline(refuse_s=NOT_AGAIN_S)
                continue
            draft = task(process("sh", "-c", "echo I am on $EDGERM_AGENT_ID"), resources=NEEDS)
            try:
                [placed[offer.agent_id]] = await offer.accept([draft], refuse_s=NOT_AGAIN_S)
            except OfferGone:
                continue  # Its agent went away meanwhile; another offer will come.
            note = " (preferred)" if preferred(offer, attribute, value) else ""
            print(f"{placed[offer.agent_id]} goes to {offer.agent_name}{note}")
    return list(placed.values())


async def main(count: int, preference: str) -> None:
    attribute, _, value = preference.partition("=")
    async with connect_framework(name="own-placement", offers=True) as framework:
        for placed in await place(framework, count, attribute, value):
            ended = await placed.wait()
            print(f"{placed}: {ended.state.name} on agent {ended.agent_name}")
        await framework.teardown()


if __name__ == "__main__":
    anyio.run(
        main, int(sys.argv[1]) if len(sys.argv) > 1 else 1, sys.argv[2] if len(sys.argv) > 2 else "zone=a"
    )
