"""How many work items nodes can hold."""

import pytest

from cluster.resources import (
    Node,
    describe_size,
    max_placements,
    placement_errors,
    training_request,
    trial_request,
)
from contract.config import Sweep, Train

TRAIN = Train(num_workers=4, cpus_per_worker=2, gpus_per_worker=1)


def test_a_trial_has_the_workers_of_the_sweep() -> None:
    assert trial_request(TRAIN, Sweep()).count == 4
    request = trial_request(TRAIN, Sweep(num_workers=1))
    assert (request.count, request.count_setting) == (1, "sweep.num_workers")


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [([(4, 2)], 2), ([(3, 2)], 1), ([(8, 1), (8, 1)], 2), ([(64, 0)], 0), ([], 0)],
)
def test_each_item_needs_both_resources_on_one_node(
    nodes: list[tuple[float, float]], expected: int
) -> None:
    free = [Node("n", cpus, gpus) for cpus, gpus in nodes]
    assert max_placements(training_request(TRAIN), free) == expected


def test_the_reason_names_setting_and_value() -> None:
    request = training_request(TRAIN)
    assert describe_size(request) == "2 CPU and 1 GPU"
    (no_gpu,) = placement_errors(request, [Node("n", 8, 0)])
    assert "train.gpus_per_worker" in no_gpu
    (too_many,) = placement_errors(request, [Node("n", 4, 2)])
    assert "set train.num_workers to 2" in too_many
    (apart,) = placement_errors(request, [Node("cpu", 8, 0), Node("gpu", 1, 8)])
    assert "no single node has both" in apart
    assert placement_errors(request, [Node("n", 8, 4)]) == []
