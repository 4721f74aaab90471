"""What one call of a scheduler has left to give."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.account import Account
from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.ids import AgentId
from edgerm_core.interfaces import Placement
from edgerm_core.resources import EMPTY, Resources
from edgerm_core.testing.clusters import Cluster, task_spec

A1, A2 = AgentId("a1"), AgentId("a2")


def cluster_of(first: str, second: str, max_tasks: int = 0) -> Cluster:
    cluster = Cluster()
    for agent_id, totals in ((A2, second), (A1, first)):
        executors = (Fingerprint("process"),)
        cluster.add_agent(
            AgentInfo(agent_id, totals=Resources.parse(totals), executors=executors, max_tasks=max_tasks)
        )
    return cluster


def test_agents_come_by_id() -> None:
    assert list(Account(cluster_of("cpus:1", "cpus:1").agents)) == [A1, A2]


def test_what_was_given_is_not_there_any_more() -> None:
    account = Account(cluster_of("cpus:2;ports:[80-81]", "cpus:9").agents)
    assert account.place(task_spec("cpus:1.5;ports:1"), A1)
    assert account.free(A1) == Resources.parse("cpus:0.5;ports:[81]")
    assert not account.place(task_spec("cpus:1"), A1)
    assert account.free(A1) == Resources.parse("cpus:0.5;ports:[81]")
    assert account.place(task_spec("cpus:1"), A2)


def test_an_agent_that_takes_no_more_tasks_has_nothing_left() -> None:
    account = Account(cluster_of("cpus:2", "", max_tasks=1).agents)
    assert account.place(task_spec(""), A1)
    assert not account.place(task_spec(""), A1)
    assert account.free(A1) == EMPTY


def test_a_task_goes_nowhere_where_it_does_not_suit() -> None:
    account = Account(cluster_of("cpus:2", "cpus:2").agents)
    assert not account.place(task_spec("cpus:1", executors=("wasm",)), A1)


def test_what_is_offered_is_not_there_any_more() -> None:
    account = Account(cluster_of("cpus:2", "cpus:2").agents)
    account.offer(A1)
    assert account.free(A1) == EMPTY
    assert not account.place(task_spec("cpus:1"), A1)


@settings(max_examples=100, deadline=None)
@given(
    wanted=st.lists(
        st.tuples(st.sampled_from(["", "cpus:1", "cpus:0.3", "cpus:2"]), st.sampled_from([A1, A2]))
    ),
    max_tasks=st.integers(0, 3),
)
def test_what_the_account_says_is_what_the_books_take(
    wanted: list[tuple[str, AgentId]], max_tasks: int
) -> None:
    cluster = cluster_of("cpus:2", "cpus:3", max_tasks)
    framework = cluster.add_framework("f")
    account = Account(dict(cluster.agents))
    for resources, agent_id in wanted:
        spec = task_spec(resources)
        (task_id,) = cluster.submit(framework, spec)
        placed = account.place(spec, agent_id)
        assert cluster.apply(Placement(task_id, agent_id)) is placed
