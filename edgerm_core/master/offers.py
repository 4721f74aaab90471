"""Offers on the master: made by the scheduler, held, answered by their framework, or taken back.

Semantics as in Mesos: an offer is one agent's resources for one framework, counts as allocated
while it is out, works once, and does not survive the master. A decline leaves a filter that keeps
the same or less of that agent away for a while; a larger remainder gets through.
"""

from __future__ import annotations

from edgerm_core.feasibility import check, choose_implementation
from edgerm_core.ids import FrameworkId, OfferId, SessionId
from edgerm_core.limits import REFUSE_MAX_S
from edgerm_core.master.records import AgentRecord, FrameworkRecord, OfferRecord, fair_amounts
from edgerm_core.master.state import MasterState
from edgerm_core.master.tasks import check_submission, new_task, place
from edgerm_core.messages import Accept, Decline, Offers, RefusalCode, Rescind, Submitted
from edgerm_core.offers import Offer
from edgerm_core.resources import Resources
from edgerm_core.tasks import Reason


def make_offer(state: MasterState, framework: FrameworkRecord, agent: AgentRecord) -> None:
    """Offer all that is free on the agent. The caller has checked that the framework wants it."""
    offer_id = OfferId(state.next_offer_id)
    state.next_offer_id += 1
    state.dirty["meta", ""] = None
    resources = agent.free
    expires_at = state.now + state.settings.offer_timeout_s
    charge = dict(fair_amounts(resources, agent.devices))
    offer = OfferRecord(offer_id, framework.id, agent.id, resources, charge, expires_at)
    state.hold_offer(offer)
    state.at(expires_at, on_expiry, offer_id)
    shown = Offer(
        offer_id,
        agent.id,
        agent.info.name,
        resources,
        agent.attributes,
        tuple(agent.devices[device] for device in sorted(resources.devices)),
        tuple(sorted(agent.executors)),
        state.settings.offer_timeout_s,
    )
    state.send(framework.session_id, Offers((shown,)))


def on_expiry(state: MasterState, offer_id: OfferId) -> None:
    """An offer was not answered in time."""
    offer = state.offers.get(offer_id)
    if offer is not None:
        rescind(state, offer)


def rescind(state: MasterState, offer: OfferRecord) -> None:
    """Take an offer back and say so."""
    state.release_offer(offer)
    framework = state.frameworks.get(offer.framework_id)
    if framework is not None:
        state.send(framework.session_id, Rescind((offer.id,)))


def rescind_agent(state: MasterState, agent: AgentRecord) -> None:
    """Take back every offer of an agent's resources."""
    for offer_id in sorted(agent.offers):
        rescind(state, state.offers[offer_id])


def drop_framework_offers(state: MasterState, framework: FrameworkRecord) -> None:
    """The framework is not there to answer: its offers are void."""
    for offer_id in sorted(framework.offers):
        state.release_offer(state.offers[offer_id])


def accept(state: MasterState, framework: FrameworkRecord, session_id: SessionId, request: Accept) -> None:
    """Launch tasks on offers of one agent; the rest goes back under the request's filter."""
    if request.keys and all(key in framework.keys for key in request.keys):
        # Sent again after its answer was lost: the tasks run, the offers are gone.
        known_ids = tuple(framework.keys[key] for key in request.keys)
        state.send(session_id, Submitted(request.request_id, known_ids))
        return
    offers = [state.offers.get(offer_id) for offer_id in request.offer_ids]
    mine = [o for o in offers if o is not None and o.framework_id == framework.id]
    problem = _check_accept(state, framework, request, mine)
    if problem is not None:
        for offer in mine:
            state.release_offer(offer)
        state.fail(session_id, request.request_id, *problem)
        return
    # Let go and taken again within one event: nothing can come between.
    for offer in mine:
        state.release_offer(offer)
    agent = state.agents[mine[0].agent_id]
    offered = mine[0].resources
    for offer in mine[1:]:
        offered = offered + offer.resources
    ids = []
    for key, spec in zip(request.keys, request.specs, strict=True):
        known = framework.keys.get(key)
        if known is not None:
            ids.append(known)
            continue
        tasks = [new_task(state, framework, key, index, spec) for index in range(spec.instances)]
        framework.keys[key] = tuple(task.id for task in tasks)
        for task in tasks:
            granted = check(spec, agent)
            assert isinstance(granted, Resources), "checked before"
            implementation = choose_implementation(spec, agent.executors)
            assert implementation is not None, "checked before"
            place(state, task, agent, implementation, granted, Reason.ACCEPTED_OFFER)
            offered = offered.minus_at_most(granted)
        ids.append(framework.keys[key])
    refuse(state, framework, agent, offered, request.refuse_s)
    state.send(session_id, Submitted(request.request_id, tuple(ids)))


def _check_accept(
    state: MasterState, framework: FrameworkRecord, request: Accept, mine: list[OfferRecord]
) -> tuple[str, str] | None:
    if not request.offer_ids or len(mine) != len(set(request.offer_ids)):
        return RefusalCode.OFFER_INVALID, "an offer is gone: answered before, rescinded or expired"
    if len({offer.agent_id for offer in mine}) != 1:
        return RefusalCode.OFFER_INVALID, "the offers are of different agents; accept each by itself"
    problem = check_submission(framework, state, request.keys, request.specs)
    if problem is not None:
        return problem
    agent = state.agents[mine[0].agent_id]
    if not agent.schedulable:
        return RefusalCode.AGENT_AWAY, f"agent {agent.info.name or agent.id} takes no tasks now"
    missing = [
        blob.hex()[:12] for spec in request.specs for blob in spec.blobs() if blob not in state.blobs
    ]
    if missing:
        return RefusalCode.NOT_FOUND, f"not uploaded yet: {', '.join(missing)}"
    offered = mine[0].resources
    for offer in mine[1:]:
        offered = offered + offer.resources
    wanted = sum(spec.instances for spec in request.specs)
    if wanted > agent.tasks_left:
        limit = f"agent {agent.info.name or agent.id} takes {agent.tasks_left} more at once (its max_tasks)"
        return RefusalCode.OFFER_INVALID, f"{wanted} tasks are too many: {limit}"
    # A trial on a copy: the tasks must fit into what was offered, all together.
    trial = AgentRecord(agent.info)
    trial.free = offered
    for spec in request.specs:
        for _ in range(spec.instances):
            granted = check(spec, trial)
            if not isinstance(granted, Resources):
                obstacles = "; ".join(obstacle.sentence for obstacle in granted)
                return RefusalCode.OFFER_INVALID, f"task {spec.name} does not fit the offer: {obstacles}"
            trial.free = trial.free - granted
    return None


def decline(state: MasterState, framework: FrameworkRecord, request: Decline) -> None:
    """Give offers back; those that are gone already are no error."""
    for offer_id in request.offer_ids:
        offer = state.offers.get(offer_id)
        if offer is not None and offer.framework_id == framework.id:
            state.release_offer(offer)
            refuse(state, framework, state.agents[offer.agent_id], offer.resources, request.refuse_s)


def refuse(
    state: MasterState,
    framework: FrameworkRecord,
    agent: AgentRecord,
    resources: Resources,
    refuse_s: float,
) -> None:
    """Keep the same or less of the agent away from the framework for a while; at most REFUSE_MAX_S."""
    if refuse_s == 0 or not resources:
        return
    until = state.now + min(refuse_s, REFUSE_MAX_S)
    framework.filters[agent.id] = (until, resources)
    state.framework_changes.add(framework.id)
    state.at(until, on_filter_over, framework.id)


def on_filter_over(state: MasterState, framework_id: FrameworkId) -> None:
    """A filter has ended: the framework may be offered that agent again."""
    framework = state.frameworks.get(framework_id)
    if framework is None:
        return
    for agent_id, (until, _) in list(framework.filters.items()):
        if until <= state.now:
            del framework.filters[agent_id]
    state.framework_changes.add(framework_id)


def revive(state: MasterState, framework: FrameworkRecord) -> None:
    """Forget the filters and make offers again."""
    framework.filters.clear()
    framework.suppressed = False
    state.framework_changes.add(framework.id)


def suppress(state: MasterState, framework: FrameworkRecord) -> None:
    """Make no offers until revived. Offers that are out stay out."""
    framework.suppressed = True
    state.framework_changes.add(framework.id)
