"""The agent's shell: what a process loses when it dies, and what it does not."""

from __future__ import annotations

from edgerm_core.testing.simulator.cluster import Cluster

from .conftest import Begin, job


def test_an_agent_registers_and_runs_what_it_is_given(begin: Begin) -> None:
    cluster = begin(job(run_s=None))
    agent = cluster.agents["a1"]
    assert agent.online
    assert [str(run) for run in agent.host.live()] == ["t1.1+0"]


def restarted(cluster: Cluster) -> None:
    agent = cluster.agents["a1"]
    agent.kill()
    assert agent.agent is None
    agent.start()
    cluster.world.run_until(cluster.world.now + 20.0)


def test_a_killed_agent_takes_up_what_its_keeper_kept(begin: Begin) -> None:
    cluster = begin(job(run_s=None))
    [run] = cluster.agents["a1"].host.live()
    restarted(cluster)
    assert cluster.agents["a1"].host.live() == [run]


def test_what_lived_inside_it_is_run_anew_as_another_attempt(begin: Begin) -> None:
    cluster = begin(job(run_s=None, executor="wasm"))
    restarted(cluster)
    assert [str(run) for run in cluster.agents["a1"].host.live()] == ["t1.2+0"]


def test_the_journal_says_what_the_agent_knows(begin: Begin) -> None:
    cluster = begin(job(run_s=None))
    cluster.checks.journal_agrees(cluster.agents["a1"])


def test_a_rebooted_machine_has_another_boot_id(begin: Begin) -> None:
    cluster = begin(job(run_s=None))
    agent = cluster.agents["a1"]
    agent.power_off(cleanly=True)
    assert agent.host.live() == []
    agent.power_on()
    agent.start()
    cluster.world.run_until(cluster.world.now + 60.0)
    assert cluster.master.machine is not None
    [record] = cluster.master.machine.state.agents.values()
    assert record.boot_id == "a1-boot-2"


def test_nothing_starts_on_a_machine_without_power(begin: Begin) -> None:
    agent = begin().agents["a1"]
    agent.power_off(cleanly=False)
    agent.start()
    assert agent.agent is None
