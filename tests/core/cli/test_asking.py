from __future__ import annotations

from typing import Any

import pytest

from edgerm_core.cli.asking import query, with_operator
from edgerm_core.cli.settings import Settings
from edgerm_core.errors import EdgermError, RequestFailed


def test_rows_and_total_come_back(operator: Any) -> None:
    operator.rows["agents"] = [{"id": "a"}, {"id": "b"}]
    assert query(Settings(insecure=True), "agents", {"limit": 1}) == ([{"id": "a"}], 2)
    assert operator.requests == [("connect", ("ws://127.0.0.1:7070",), True), ("agents", {"limit": 1})]


def test_refusal_comes_out_as_it_is(operator: Any) -> None:
    operator.error = RequestFailed("not-found", "there is no task 't9'")
    with pytest.raises(EdgermError, match="there is no task 't9'"):
        query(Settings(), "story", {"task": "t9"})


def test_work_gets_the_operator_and_its_value_is_returned(operator: Any) -> None:
    async def work(connected: Any) -> bool:
        return connected is operator

    assert with_operator(Settings(), work)
