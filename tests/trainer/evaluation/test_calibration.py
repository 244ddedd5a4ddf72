"""Bins of probabilities against their definition, added slice by slice."""

import csv
import io

import numpy as np
import pytest

from contract.imaging.encode import decode_png
from tests.trainer.evaluation.conftest import EvaluationResult
from trainer.evaluation.calibration import ReliabilityCounts
from trainer.visualization.reliability_plot import ReliabilityCurve, plot_reliability

RNG = np.random.default_rng(2)


def test_the_bins_are_those_of_the_definition() -> None:
    masks = RNG.integers(0, 3, (4, 9, 7), np.uint8)
    probability = RNG.random((4, 9, 7, 2), np.float32)
    probability[0, 0, 0] = 0.0, 1.0
    counts = ReliabilityCounts(2)
    for mask, values in zip(masks, probability, strict=True):
        counts.add_slice(mask, values)
    for index in range(2):
        result, p = counts.reliability(index), probability[..., index]
        error = 0.0
        for number in range(10):
            low, high = number / 10, (number + 1) / 10
            inside = (p >= low) & ((p < high) | (number == 9))
            assert result.pixels[number] == inside.sum()
            mean, fraction = p[inside].mean(), (masks == index + 1)[inside].mean()
            assert result.mean_probability[number] == pytest.approx(mean, rel=1e-5)
            assert result.fraction[number] == pytest.approx(fraction)
            error += abs(mean - fraction) * inside.sum() / p.size
        assert result.expected_error == pytest.approx(error, rel=1e-5)
        assert result.maximum_error >= result.expected_error


def test_a_network_that_is_right_and_certain_is_calibrated() -> None:
    mask = np.eye(4, dtype=np.uint8)
    counts = ReliabilityCounts(1)
    counts.add_slice(mask, mask.astype(np.float32)[..., None])
    result = counts.reliability(0)
    assert (result.expected_error, result.maximum_error) == (0.0, 0.0)
    assert result.mean_probability == (0.0, *[None] * 8, 1.0)
    counts.add_slice(mask * 0, mask.astype(np.float32)[..., None])
    # Half of the pixels with probability 1 have the class: 4 of 32 pixels too many.
    assert counts.reliability(0).expected_error == pytest.approx(4 / 32)
    assert counts.reliability(0).maximum_error == pytest.approx(0.5)


def test_the_files(done: EvaluationResult) -> None:
    text = done.destination.read("reliability.csv").decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 10
    height, width = 40, 60
    assert sum(int(row["pixels"]) for row in rows) == 5 * height * width + (height + 10) * width
    assert decode_png(done.destination.read("reliability.png")).shape[2] == 3
    assert decode_png(done.destination.read("patients.png")).shape[2] == 3


def test_a_diagram_may_have_a_class_without_pixels_in_most_bins() -> None:
    sparse = ReliabilityCurve((0.01, *[None] * 9), (0.0, *[None] * 9), (9, *[0] * 9), (9, 9, 9))
    assert plot_reliability({"liver": sparse}).startswith(b"\x89PNG")
