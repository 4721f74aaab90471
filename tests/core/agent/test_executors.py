"""Executors that are broken or silent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from edgerm_core.agent import executors as executors_module
from edgerm_core.agent.executors import close_executors, fingerprints, sweep_executors
from edgerm_core.agents import Fingerprint
from edgerm_core.interfaces import TaskHandle
from edgerm_core.testing.fakes import FakeExecutor

pytestmark = pytest.mark.anyio


class SilentExecutor(FakeExecutor):
    async def fingerprint(self) -> Fingerprint:
        await anyio.sleep_forever()
        raise AssertionError("unreachable")

    async def close(self) -> None:
        await anyio.sleep_forever()


class FailingExecutor(FakeExecutor):
    async def fingerprint(self) -> Fingerprint:
        raise ZeroDivisionError("oops")

    async def close(self) -> None:
        raise ZeroDivisionError("oops")


async def test_one_that_fails_or_is_silent_is_unhealthy_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executors_module, "FINGERPRINT_TIMEOUT_S", 0.01)
    found = await fingerprints(
        {
            "silent": SilentExecutor(),
            "failing": FailingExecutor(),
            "fine": FakeExecutor("fine"),
        }
    )
    assert [(each.name, each.healthy) for each in found] == [
        ("silent", False),
        ("failing", False),
        ("fine", True),
    ]
    assert "did not answer" in found[0].problem
    assert "oops" in found[1].problem


async def test_all_are_closed_although_some_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors_module, "CLOSE_TIMEOUT_S", 0.01)
    fine = FakeExecutor()
    with anyio.fail_after(10):
        await close_executors({"silent": SilentExecutor(), "failing": FailingExecutor(), "fine": fine})
    assert fine.closed


@pytest.mark.parametrize("nonsense", [None, "healthy", Fingerprint("another")])
async def test_one_that_answers_nonsense_is_unhealthy(nonsense: Any) -> None:
    executor = FakeExecutor("mine")
    executor.fingerprinted = nonsense
    (found,) = await fingerprints({"mine": executor})
    assert (found.name, found.healthy) == ("mine", False)
    assert "expected its own Fingerprint" in found.problem


async def test_all_are_swept_with_their_own_handles_although_some_fail() -> None:
    class Failing(FakeExecutor):
        async def sweep(self, kept: Sequence[TaskHandle]) -> None:
            raise ZeroDivisionError("oops")

    first, last = FakeExecutor("first"), FakeExecutor("last")
    handles = [TaskHandle("last", data={"n": 1}), TaskHandle("first", data={"n": 2})]
    await sweep_executors({"first": first, "failing": Failing(), "last": last}, handles)
    assert first.swept == [[handles[1]]]
    assert last.swept == [[handles[0]]]
