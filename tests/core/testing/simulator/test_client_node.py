"""Clients dial again until they are in, and notice a master that does not answer."""

from __future__ import annotations

from .conftest import Begin, job


def test_a_client_comes_back_after_its_connection_broke(begin: Begin) -> None:
    cluster = begin()
    framework = cluster.frameworks["f1"]
    assert framework.connected
    for connection in list(framework.link.connections):
        connection.reset()
    cluster.world.run_until(11.0)
    cluster.world.run_until(40.0)
    assert framework.connected


def test_an_overdue_answer_ends_a_dead_connection(begin: Begin) -> None:
    cluster = begin()
    framework = cluster.frameworks["f1"]
    for connection in list(framework.link.connections):
        connection._forgotten_by_nat = True
    framework.submit("w1", job("w1"))
    cluster.world.run_until(200.0)
    assert framework.submissions["w1"].ids == (1,)


def test_a_client_that_died_stays_away_until_it_dials(begin: Begin) -> None:
    cluster = begin()
    framework = cluster.frameworks["f1"]
    framework.die()
    cluster.world.run_until(100.0)
    assert not framework.connected
    framework.dial()
    cluster.world.run_until(110.0)
    assert framework.connected
