"""The scheduler `drf` keeps the contract, whichever way it places."""

import pytest
from edgerm_scheduler_drf.config import DrfConfig
from edgerm_scheduler_drf.scheduler import DrfScheduler

from edgerm_core.testing.contracts.scheduler import MakeScheduler, SchedulerContract


class TestPack(SchedulerContract):
    @pytest.fixture
    def make_scheduler(self) -> MakeScheduler:
        return DrfScheduler


class TestSpread(SchedulerContract):
    @pytest.fixture
    def make_scheduler(self) -> MakeScheduler:
        return lambda: DrfScheduler(DrfConfig(strategy="spread"))


class TestOneDecisionACall(SchedulerContract):
    @pytest.fixture
    def make_scheduler(self) -> MakeScheduler:
        return lambda: DrfScheduler(DrfConfig(max_decisions=1))


class TestSettingAsideAtOnce(SchedulerContract):
    @pytest.fixture
    def make_scheduler(self) -> MakeScheduler:
        return lambda: DrfScheduler(DrfConfig(reserve_after_s=0, reserve_for_s=40, max_reservations=2))
