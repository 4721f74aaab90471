"""What suites with coroutines have in common: they run on asyncio, as edgerm's daemons do."""

from __future__ import annotations

import pytest


class AsyncContract:
    """Base of the suites whose tests are coroutines; brings all that anyio's pytest plugin wants."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"
