"""Training steps are timed in a process of their own."""

import pytest

from contract.config import validate
from trainer.planning import measured_speed
from trainer.planning.measured_speed import StepSeconds, measure_speed
from trainer.planning.step_time import NetworkShape


def test_the_speed_is_that_of_some_steps_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_speed, "_MIN_CPU_USE", 0.0)
    shape = NetworkShape(16, 16, 2, 4, 8)
    network = {"image_size": 16, "num_layers": 2, "base_filters": 4, "max_filters": 8}
    train = {"num_workers": 1, "batch_size": 2}
    config = validate({"network": network, "train": train}, origin="test")
    speed = measure_speed(config, shape)
    assert speed is not None
    assert speed > 0


def test_a_step_next_to_other_programs_is_not_used() -> None:
    assert not StepSeconds(wall=1.0, cpu=1.7).is_disturbed(2, 0)
    assert StepSeconds(wall=3.0, cpu=1.7).is_disturbed(2, 0)
    assert not StepSeconds(wall=1.0, cpu=1.7).is_disturbed(64, 0)
    assert not StepSeconds(wall=3.0, cpu=0.1).is_disturbed(2, 1)
