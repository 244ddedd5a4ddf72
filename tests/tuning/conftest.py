"""A scheduler whose clock is set by the test."""

from pathlib import Path

import pytest

from contract.storage import open_storage
from tests.sweeps import FakeClock, sweep_config
from tuning.scheduler import SweepScheduler
from tuning.trial_store import TrialStore


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def scheduler(tmp_path: Path, clock: FakeClock) -> SweepScheduler:
    return SweepScheduler(
        sweep_config(str(tmp_path)), TrialStore(open_storage(str(tmp_path)), clock), 2
    )
