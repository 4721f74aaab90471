"""A framework as a careful application would be: it believes nothing that contradicts what it was told.

It submits with keys and repeats what was not answered, asks after its tasks in every new session, kills,
takes offers, and checks every word: versions grow, an end is final, a key names the same tasks for ever.
"""

from __future__ import annotations

from typing import Final

import msgspec

from edgerm_core.frameworks import FrameworkInfo
from edgerm_core.ids import AgentId, FrameworkId, OfferId, TaskId
from edgerm_core.messages import (
    Accept,
    AnyMessage,
    Decline,
    Done,
    Drain,
    Failed,
    KillTasks,
    Message,
    Offers,
    Reconcile,
    Reconciled,
    RefusalCode,
    Refused,
    Rescind,
    Revive,
    Submit,
    Submitted,
    Subscribe,
    Subscribed,
    Suppress,
    TaskAcknowledge,
    TaskUpdate,
    Unsubscribe,
)
from edgerm_core.offers import Offer
from edgerm_core.resources import ResourceRequest
from edgerm_core.tasks import Implementation, TaskSpec
from edgerm_core.testing.simulator.checks import Checks
from edgerm_core.testing.simulator.client_node import ClientNode
from edgerm_core.testing.simulator.executors import Behaviour
from edgerm_core.testing.simulator.network import Link, LinkQuality
from edgerm_core.testing.simulator.world import Failure, World

RECONCILE_S: Final = 900.0
"""It asks after its tasks this often, as Mesos's guide for frameworks advises."""


_STOLEN: Final = TaskSpec("stolen", (Implementation("process", options=Behaviour().options()),))

MAX_ACCEPTS: Final = 20
"""Offers that one framework accepts: each makes a task, and each task is looked at after every event."""


class FrameworkPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """A framework.

    Attributes:
        name: its id.
        weight, role, failover_timeout_s: as in `FrameworkInfo`.
        offers: whether it takes offers.
        accepts, declines: of a hundred offers, how many it accepts and declines; the rest it ignores.
        acknowledges: whether it acknowledges ends.
        link: its way to the master.
    """

    name: str
    weight: int = 1000
    role: str = ""
    failover_timeout_s: float | None = None
    offers: bool = False
    accepts: int = 50
    declines: int = 30
    acknowledges: bool = True
    link: LinkQuality = LinkQuality()


class Submission(msgspec.Struct):
    """What was submitted under one key, and what became of it.

    Attributes:
        offer_id: the offer it was to be launched on; None: it was submitted.
        ids: the tasks it made; None: not answered yet.
        failed: why the master refused it; empty: it has not.
        sent: how often it was sent.
    """

    key: str
    spec: TaskSpec
    offer_id: OfferId | None = None
    ids: tuple[int, ...] | None = None
    failed: str = ""
    sent: int = 0


class FrameworkNode(ClientNode):
    """A framework.

    Attributes:
        submissions: by key.
        told: by task, the newest update it has seen.
        kills: tasks it wants killed; True once the master has said Done.
        removed: it has unsubscribed, or the master says it is gone.
    """

    def __init__(self, world: World, plan: FrameworkPlan, link: Link, checks: Checks) -> None:
        super().__init__(world, plan.name, link)
        self.plan = plan
        self.checks = checks
        self.submissions: dict[str, Submission] = {}
        self.told: dict[int, TaskUpdate] = {}
        self.kills: dict[int, bool] = {}
        self.removed = False
        self.leaving = False
        self.calm = False
        self.offers: dict[OfferId, Offer] = {}
        self._requests: dict[int, Message] = {}
        self._next_request = 1
        self._accepts = 0
        world.after(RECONCILE_S, self._reconcile_now_and_then)

    # --- what it is told to do ----------------------------------------------------------------

    def submit(self, key: str, spec: TaskSpec) -> None:
        """Submit a spec under a key."""
        submission = self.submissions.setdefault(key, Submission(key, spec))
        if self.connected:
            self._submit(submission)

    def submit_again(self, key: str) -> None:
        """Submit a key once more, whether it was answered or not."""
        submission = self.submissions.get(key)
        if submission is not None and self.connected:
            self._submit(submission)

    def _submit(self, submission: Submission) -> None:
        submission.sent += 1
        if submission.offer_id is None:
            self._ask(Submit(0, (submission.key,), (submission.spec,)))
        else:
            self._ask(Accept(0, (submission.offer_id,), (submission.key,), (submission.spec,), 1.0))

    def kill(self, key: str) -> None:
        """Kill the tasks of a key, as soon as it is known which they are."""
        submission = self.submissions.get(key)
        if submission is None or not submission.ids:
            return
        for task_id in submission.ids:
            self.kills.setdefault(task_id, False)
            self.checks.kill_wanted(task_id)
        if self.connected:
            self._ask(KillTasks(0, tuple(map(TaskId, submission.ids))))

    def leave(self) -> None:
        """Unsubscribe: its tasks are killed."""
        self.leaving = True
        for task_id in self.task_ids():
            self.checks.kill_wanted(task_id)
        self.checks.framework_leaves(self.name)
        if self.connected:
            self._ask(Unsubscribe(0))

    def be_calm(self) -> None:
        """Take no more offers: what waits shall be placed."""
        self.calm = True
        if self.connected and self.plan.offers:
            self._settle_offers()

    def suppress(self) -> None:
        """Take no offers for a while."""
        self.say(Suppress())

    def revive(self) -> None:
        """Take offers again."""
        if not self.calm:
            self.say(Revive())

    def task_ids(self) -> list[int]:
        """Return all tasks it knows of."""
        known = {task_id for each in self.submissions.values() for task_id in each.ids or ()}
        return sorted(known | self.told.keys())

    # --- the session --------------------------------------------------------------------------

    def greeting(self) -> Message:
        """See `ClientNode.greeting`."""
        plan = self.plan
        info = FrameworkInfo(
            FrameworkId(plan.name), plan.name, plan.weight, plan.role, plan.failover_timeout_s, plan.offers
        )
        return Subscribe((1, 1), info)

    def took_in(self, message: AnyMessage) -> bool:
        """See `ClientNode.took_in`."""
        if not isinstance(message, Subscribed):
            return False
        if not message.known and any(submission.ids for submission in self.submissions.values()):
            self._is_forgotten("it")
        return True

    def _is_forgotten(self, what: str) -> None:
        """The master has no record of something that it had promised to keep."""
        if self.plan.failover_timeout_s is None and not self.leaving:
            raise Failure(f"{self.name}: the master has forgotten {what}")
        # It was away for longer than it had said that it would be.
        self.finished = True
        self.checks.framework_leaves(self.name)

    def begin_session(self) -> None:
        """See `ClientNode.begin_session`."""
        self._requests.clear()
        self.offers.clear()
        if self.finished:
            self.hang_up("it was away for too long, and its tasks are gone")
            return
        if self.leaving:
            self._ask(Unsubscribe(0))
            return
        live = [task_id for task_id in self.task_ids() if not self._ended(task_id)]
        if live:
            self._ask(Reconcile(0, tuple(map(TaskId, live))))
        for submission in self.submissions.values():
            if submission.ids is None and not submission.failed:
                self._submit(submission)
        wanted = [task_id for task_id, done in self.kills.items() if not done]
        if wanted:
            self._ask(KillTasks(0, tuple(map(TaskId, wanted))))
        if self.calm and self.plan.offers:
            self._settle_offers()

    def _settle_offers(self) -> None:
        self.say(Suppress())
        if self.offers:
            self.say(Decline(tuple(self.offers), 1.0))
            self.offers.clear()

    @property
    def owed(self) -> bool:
        """See `ClientNode.owed`."""
        return bool(self._requests)

    def _ask(self, request: Submit | Accept | KillTasks | Reconcile | Unsubscribe) -> None:
        numbered = msgspec.structs.replace(request, request_id=self._next_request)
        self._requests[self._next_request] = numbered
        self._next_request += 1
        self.say(numbered)

    def _reconcile_now_and_then(self) -> None:
        if self.connected and not self.leaving:
            self._ask(Reconcile(0))
        if not self.finished:
            self.world.after(RECONCILE_S, self._reconcile_now_and_then)

    def on_refused(self, message: Refused) -> None:
        """See `ClientNode.on_refused`."""
        if message.code == RefusalCode.REMOVED:
            self.checks.framework_leaves(self.name)
            self.removed = self.finished = True

    # --- what it hears ------------------------------------------------------------------------

    def on_message(self, message: AnyMessage) -> None:
        """See `ClientNode.on_message`."""
        match message:
            case TaskUpdate():
                self._on_update(message)
            case Submitted() | Done() | Failed() | Reconciled():
                request = self._requests.pop(message.request_id, None)
                if request is not None:
                    self._on_answer(request, message)
            case Offers(offers):
                for offer in offers:
                    self._on_offer(offer)
            case Rescind(offer_ids):
                for offer_id in offer_ids:
                    self.offers.pop(offer_id, None)
            case _:
                raise Failure(f"{self.name}: was sent {message}, which is not for frameworks")

    def _on_update(self, update: TaskUpdate) -> None:
        task_id = int(update.task_id)
        before = self.told.get(task_id)
        if before is not None:
            what = f"{self.name}: t{task_id} was {before.state.name} (version {before.version})"
            now = f"{update.state.name} (version {update.version})"
            if update.version < before.version:
                raise Failure(f"{what}, and then an older {now} was told")
            same = (update.state, update.reason, update.attempt, update.restarts, update.result)
            if update.version == before.version:
                if same != (before.state, before.reason, before.attempt, before.restarts, before.result):
                    raise Failure(f"{what}, and then told as {now}: one version, two contents")
                return
            if before.state.terminal:
                raise Failure(f"{what}, which is final, and then {now}")
            if update.attempt < before.attempt:
                raise Failure(f"{what} in attempt {before.attempt}, and then {now} in {update.attempt}")
        self.told[task_id] = update
        if update.state.terminal:
            self.checks.end_told(self.name, update)
            if self.plan.acknowledges:
                self.say(TaskAcknowledge((update.task_id,)))

    def _ended(self, task_id: int) -> bool:
        update = self.told.get(task_id)
        return update is not None and update.state.terminal

    def _on_answer(self, request: Message, answer: Submitted | Done | Failed | Reconciled) -> None:
        if isinstance(answer, Failed) and answer.code == RefusalCode.INTERNAL:
            raise Failure(f"{self.name}: the master failed at {request}: {answer.message}")
        match request:
            case Submit(keys=keys) | Accept(keys=keys):
                self._on_submitted(self.submissions[keys[0]], answer)
            case KillTasks(task_ids=task_ids):
                if isinstance(answer, Done):
                    for task_id in map(int, task_ids):
                        if task_id not in self.kills:
                            raise Failure(f"{self.name}: the master killed t{task_id}, which is another's")
                        self.kills[task_id] = True
                        self.checks.kill_promised(task_id)
                elif set(map(int, task_ids)) <= set(self.task_ids()):
                    self._is_forgotten(f"tasks {task_ids}, and does not kill them")
            case Reconcile(task_ids=task_ids):
                if not isinstance(answer, Reconciled):
                    raise Failure(f"{self.name}: {request} was answered with {answer}")
                lost = [int(t) for t in answer.unknown if int(t) in self.task_ids()]
                if lost:
                    self._is_forgotten(f"tasks {lost}")
            case Unsubscribe():
                self.removed = isinstance(answer, Done)

    def _on_submitted(self, submission: Submission, answer: Message) -> None:
        if isinstance(answer, Submitted):
            ids = tuple(map(int, answer.task_ids[0]))
            if submission.ids is not None and submission.ids != ids:
                raise Failure(f"{self.name}: {submission.key} made {submission.ids}, and now {ids}")
            if submission.ids is None:
                if len(ids) != submission.spec.instances:
                    raise Failure(f"{self.name}: {submission.key} made {ids}: not one per instance")
                self.checks.submitted(self.name, submission.key, ids)
            if submission.ids is None and submission.sent > 1:
                # Their news may have gone to an earlier session.
                self._ask(Reconcile(0, tuple(map(TaskId, ids))))
            submission.ids = ids
            submission.failed = ""
            if self.leaving:
                for task_id in ids:
                    self.checks.kill_wanted(task_id)
        elif isinstance(answer, Failed):
            if submission.ids is not None:
                raise Failure(f"{self.name}: {submission.key} made {submission.ids}; now {answer.message}")
            submission.failed = answer.message

    # --- offers -------------------------------------------------------------------------------

    def _on_offer(self, offer: Offer) -> None:
        if offer.id in self.offers:
            raise Failure(f"{self.name}: offer {offer.id} was made twice")
        self.offers[offer.id] = offer
        if self.calm or self.leaving:
            self._settle_offers()
            return
        dice = self.luck.randrange(100)
        wait_s = self.luck.choice((0.0, 0.5, 5.0, 30.0))
        if dice < self.plan.accepts and self._accepts < MAX_ACCEPTS:
            self._accepts += 1
            self.world.after(wait_s, lambda: self._accept(offer))
        elif dice < self.plan.accepts + self.plan.declines:
            self.world.after(wait_s, lambda: self._decline(offer))

    def _accept(self, offer: Offer) -> None:
        if not self.connected or self.leaving:
            return
        key = f"{self.name}-offer-{offer.id}"
        if key in self.submissions or not offer.executors:
            return
        spec = TaskSpec(
            key,
            (Implementation(offer.executors[0], options=Behaviour(run_s=20.0).options()),),
            ResourceRequest.parse("cpus:0.5;mem:32"),
        )
        self.submissions[key] = Submission(key, spec, offer.id)
        self.offers.pop(offer.id, None)
        self._submit(self.submissions[key])

    def _decline(self, offer: Offer) -> None:
        if self.connected and self.offers.pop(offer.id, None) is not None:
            self.say(Decline((offer.id,), self.luck.choice((0.0, 5.0, 60.0))))

    # --- misbehaving --------------------------------------------------------------------------

    def misbehave(self, how: str) -> None:
        """Do what no framework should; nobody else may be harmed."""
        luck = self.luck
        match how:
            case "garbage":
                self.say_bytes(luck.randbytes(luck.randint(1, 200)))
            case "foreign-offers":
                self.say(Accept(0, (OfferId(luck.randint(1, 50)),), (f"{self.name}-stolen",), (_STOLEN,)))
                self.say(Decline(tuple(OfferId(number) for number in range(1, 30)), 1000.0))
            case "foreign-kills":
                others = [
                    task_id
                    for task_id, owner in self.checks.owners.items()
                    if not owner.startswith(f"{self.name}/")
                ]
                if others:
                    self._ask(KillTasks(0, (TaskId(luck.choice(others)),)))
            case "flood":
                self.say(*[Revive() if self.plan.offers and not self.calm else Suppress()] * 700)
            case "wrong-role":
                self.say(Drain(0, AgentId("a1")))
            case _:
                raise AssertionError(how)
