"""Every network learns four slices, its bundle serves what it learned, and two workers train it."""

import json
import os
import socket
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.waiting import HANG_TIMEOUT_S
from trainer.networks.registry import BUILDERS

# The fixtures train eleven networks.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def learned() -> dict[str, dict[str, Any]]:
    """What learn.py finds, by network."""
    command = [sys.executable, "-m", "tests.trainer.networks.learn"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_every_network_overfits_four_slices(learned: dict[str, dict[str, Any]]) -> None:
    assert set(learned) == set(BUILDERS)
    assert {name: each["dice"] for name, each in learned.items() if each["dice"] <= 0.9} == {}


def test_the_network_of_inference_computes_what_was_trained(
    learned: dict[str, dict[str, Any]],
) -> None:
    assert [name for name, each in learned.items() if not each["is_equal"]] == []


def test_both_engines_serve_the_same_masks(learned: dict[str, dict[str, Any]]) -> None:
    assert {name: each["engines"] for name, each in learned.items() if each["engines"] > 1e-3} == {}
    assert [name for name, each in learned.items() if each["margin"] > 1e-3] == []


def run_workers(count: int) -> list[dict[str, Any]]:
    """What each of the workers of two_workers.py finds, all at once."""
    ports = []
    for _ in range(count):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    workers = [f"127.0.0.1:{port}" for port in ports]
    processes = []
    for rank in range(count):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
        environment = {"TF_CONFIG": json.dumps(task)} if count > 1 else {}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.trainer.networks.two_workers"],
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    printed = [process.communicate(timeout=HANG_TIMEOUT_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return [json.loads(text.splitlines()[-1]) for text in printed]


@pytest.fixture(scope="module")
def pair() -> list[dict[str, Any]]:
    return run_workers(2)


def test_every_network_trains_on_two_workers_in_mixed_precision(
    pair: list[dict[str, Any]],
) -> None:
    first, second = (each["losses"] for each in pair)
    assert first == second
    assert set(first) == set(BUILDERS)
    assert all(np.isfinite(losses).all() and len(losses) == 2 for losses in first.values())


def test_two_workers_compute_the_gradient_of_one(pair: list[dict[str, Any]]) -> None:
    (alone,) = run_workers(1)
    for each in pair:
        assert each["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert each["weights"] == pytest.approx(alone["weights"], rel=1e-5)
        assert each["averages"] == pytest.approx(alone["averages"], rel=1e-5)


def test_the_encoder_of_two_workers_is_frozen_and_then_trained(pair: list[dict[str, Any]]) -> None:
    """In mixed precision, with batch normalization."""
    first, second = (each["encoder"] for each in pair)
    assert first == second
    assert first["frozen"] == first["start"]
    assert all(a != b for a, b in zip(first["trained"], first["frozen"], strict=True))


def test_a_step_of_two_workers_waits_for_loss_and_gradients_only(
    pair: list[dict[str, Any]],
) -> None:
    assert [each["collectives"] for each in pair] == [2, 2]


def test_the_state_has_the_mean_of_the_moving_statistics(pair: list[dict[str, Any]]) -> None:
    assert [each["state differs"] for each in pair] == [[], []]
    assert pair[0]["moving mean"] == pair[1]["moving mean"]
