"""One question to the master: connect as an operator, ask, leave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from edgerm_core.cli.settings import Settings

if TYPE_CHECKING:
    from edgerm_core.client.operator import Operator

T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 5.0
"""A person waits for the answer: shorter than a program's patience, retries included."""

Rows = list[dict[str, Any]]


def with_operator(settings: Settings, work: Callable[[Operator], Awaitable[T]]) -> T:
    """Return what `work` returns for a connected operator.

    Raises:
        EdgermError: whatever keeps it from connecting, or the master from answering.
    """
    import anyio

    from edgerm_core.client.operator import connect_operator

    async def run() -> T:
        async with connect_operator(
            settings.master_url,
            insecure=settings.insecure,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            plugins=settings.transports,
        ) as operator:
            return await work(operator)

    return anyio.run(run)


def query(settings: Settings, kind: str, args: dict[str, Any]) -> tuple[Rows, int]:
    """Return the rows of a listing, and how many there are in all. Raises as `with_operator`."""

    async def ask(operator: Operator) -> tuple[Rows, int]:
        answer = await operator.query(kind, **args)
        return list(answer.rows), answer.total

    return with_operator(settings, ask)
