"""Settings shared by all tests."""

import pytest

pytest.register_assert_rewrite("edgerm_core.testing.contracts")


@pytest.fixture
def anyio_backend() -> str:
    """edgerm's daemons run on asyncio: websockets and wasmtime's callers need it."""
    return "asyncio"
