"""Settings shared by all tests."""

from collections.abc import Generator

import pytest
from hypothesis import settings

# Examples may take as long as a busy machine makes them take.
settings.register_profile("edgerm", settings(), deadline=None)
settings.load_profile("edgerm")


@pytest.fixture
def anyio_backend() -> str:
    """edgerm's daemons run on asyncio: websockets and wasmtime's callers need it."""
    return "asyncio"


FIRST = ("test_sleepers.py", "test_long_sleep.py", "e2e", "executor_docker", "micropython", "simulation")
"""Files and directories whose tests take longest, in that order: begun last, they would be waited for."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, in its order; the others keep theirs."""

    def rank(item: pytest.Item) -> int:
        return next((at for at, name in enumerate(FIRST) if name in item.path.parts), len(FIRST))

    items.sort(key=rank)


LEFT_OUT = "Skipped: left out: "
"""How a skip begins that many tests have in common, such as for a program that is not installed."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give tests that are left out for the same reason the same place: the summary has one line for all."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and report.longrepr[2].startswith(LEFT_OUT):
        report.longrepr = (__file__, 1, report.longrepr[2])
    return report
