"""The contract of schedulers."""

import pytest
from edgerm_core.testing.contracts.scheduler import MakeScheduler, SchedulerContract

from edgerm_scheduler_strict_priority.config import Config
from edgerm_scheduler_strict_priority.scheduler import StrictPriorityScheduler


class TestScheduler(SchedulerContract):
    @pytest.fixture
    def make_scheduler(self) -> MakeScheduler:
        return lambda: StrictPriorityScheduler(Config(roles={"lab": 5, "lab/sensing": 9}))


class TestOneDecisionACall(SchedulerContract):
    @pytest.fixture
    def make_scheduler(self) -> MakeScheduler:
        return lambda: StrictPriorityScheduler(Config(max_decisions=1))


class TestWithoutAgeing(SchedulerContract):
    @pytest.fixture
    def make_scheduler(self) -> MakeScheduler:
        return lambda: StrictPriorityScheduler(Config(ageing_s=0))
