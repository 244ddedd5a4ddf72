"""Training steps are timed in a process of their own."""

import os

from contract.config import validate
from trainer.planning.measured_speed import measure_speed
from trainer.planning.step_time import NetworkShape


def test_the_speed_is_that_of_some_steps_of_the_network() -> None:
    shape = NetworkShape(16, 16, 2, 4, 8)
    network = {"image_size": 16, "num_layers": 2, "base_filters": 4, "max_filters": 8}
    train = {"num_workers": 1, "batch_size": 2}
    config = validate({"network": network, "train": train}, origin="test")
    environment = dict(os.environ)
    speed = measure_speed(config, shape)
    # Between a slice an hour and a billion a second.
    assert speed is not None
    assert 1 / 3600 < speed / (3 * shape.multiply_adds(1, 1)) < 1e9
    assert dict(os.environ) == environment
