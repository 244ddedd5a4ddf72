"""The cost of a UNet is that of the network that is built."""

from typing import Any

import pytest

from contract.config import validate
from trainer.components.network_summary import count_multiply_adds
from trainer.networks.registry import build_network
from trainer.planning.step_time import NetworkShape, Workers

SHAPE = NetworkShape(128, 128, 5, 16, 256)


@pytest.mark.parametrize(
    ("shape", "channels", "classes"),
    [
        (NetworkShape(32, 48, 3, 4, 8), 1, 1),
        (NetworkShape(16, 16, 2, 6, 12), 3, 3),
        (NetworkShape(16, 32, 3, 4, None), 1, 1),
    ],
)
def test_multiply_adds_are_those_of_the_network(
    shape: NetworkShape, channels: int, classes: int
) -> None:
    settings: dict[str, Any] = {
        "image_size": [shape.height, shape.width],
        "num_layers": shape.num_layers,
        "base_filters": shape.base_filters,
        "max_filters": shape.max_filters,
    }
    network = validate({"network": settings}, origin="test").network
    model = build_network(network, classes, channels).inference_model
    assert shape.multiply_adds(channels, classes) == count_multiply_adds(model)


def test_a_measured_speed_replaces_the_estimate() -> None:
    estimated = Workers(1, 2, 0, 4.0)
    fast = Workers(1, 2, 0, 4.0, measured_speed=2 * estimated.speed)
    step = estimated.step_seconds(SHAPE, 1, 1, 8)
    assert step / 2 < fast.step_seconds(SHAPE, 1, 1, 8) < step


def test_two_workers_with_half_of_the_cores_are_slower() -> None:
    together = Workers(1, 2, 0, 4.0).step_seconds(SHAPE, 1, 1, 8)
    assert Workers(2, 1, 0, 4.0).step_seconds(SHAPE, 1, 1, 8) > 1.2 * together


def test_a_fast_gpu_waits_for_the_augmentation_of_its_cores() -> None:
    slow, fast = (Workers(1, cpus, 1, 80.0, measured_speed=1e15) for cpus in (1, 8))
    assert slow.step_seconds(SHAPE, 1, 1, 64) > 2 * fast.step_seconds(SHAPE, 1, 1, 64)
