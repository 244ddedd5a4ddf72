"""Surface metrics: against brute force, on shapes whose distances are known, and empty masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from trainer.evaluation.surface_distances import (
    SurfaceScore,
    measure_distances,
    score_surfaces,
)

Mask = NDArray[np.bool_]


def surface_by_definition(mask: Mask) -> NDArray[np.int64]:
    """Every foreground pixel of which a neighbour across a face is background or outside."""
    padded = np.pad(mask, 1)
    steps = [sign * step for step in np.eye(mask.ndim, dtype=int) for sign in (1, -1)]
    points = [
        point
        for point in np.argwhere(mask)
        if not all(padded[tuple(point + 1 + step)] for step in steps)
    ]
    return np.array(points, np.int64).reshape(-1, mask.ndim)


def score_by_definition(
    prediction: Mask, ground_truth: Mask, axes: NDArray[np.float64], tolerance: float
) -> tuple[float, float]:
    """Surface Dice and HD95 from the distances of all pairs; both masks have foreground."""
    predicted, true = (surface_by_definition(mask) @ axes.T for mask in (prediction, ground_truth))
    pairs = cdist(predicted, true)
    to_truth, to_prediction = pairs.min(axis=1).round(6), pairs.min(axis=0).round(6)
    within = (to_truth <= tolerance).sum() + (to_prediction <= tolerance).sum()
    hd95 = max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95))
    return within / (len(predicted) + len(true)), hd95


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[Mask, Mask]:
    """Two masks of two or three dimensions, each with some foreground."""
    shape = draw(arrays.array_shapes(min_dims=2, max_dims=3, max_side=6))
    pair = [draw(arrays.arrays(bool, shape, fill=st.just(False))) for _ in range(2)]
    for mask in pair:
        mask[tuple(draw(st.integers(0, side - 1)) for side in shape)] = True
    return pair[0], pair[1]


@settings(max_examples=60)
@given(mask_pairs(), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.7, 2.0]))
def test_the_metrics_are_those_of_the_definition(
    pair: tuple[Mask, Mask], seed: int, tolerance: float
) -> None:
    """With spacings that differ between dimensions, and axes that are not perpendicular."""
    rng, dimensions = np.random.default_rng(seed), pair[0].ndim
    axes = np.diag(rng.uniform(0.3, 5.0, dimensions)) + rng.uniform(0.0, 0.2, (dimensions,) * 2)
    score = score_surfaces([measure_distances(pair[0], pair[1], axes)], tolerance)
    surface_dice, hd95 = score_by_definition(pair[0], pair[1], axes, tolerance)
    assert score.surface_dice == pytest.approx(surface_dice)
    assert score.hd95 == pytest.approx(hd95)
    assert not score.unmatched


def cube(start: int, stop: int) -> Mask:
    mask = np.zeros((12, 12, 12), bool)
    mask[start:stop, 2:10, 2:10] = True
    return mask


def test_a_shifted_cube_is_as_far_away_as_its_spacing_says() -> None:
    """One slice of 3 mm further: the slices at both ends are moved, the sides overlap."""
    axes = np.diag([3.0, 0.5, 0.5])
    distances = measure_distances(cube(2, 10), cube(3, 11), axes)
    assert distances.to_truth.max() == pytest.approx(3.0)
    assert score_surfaces([distances], 2.0).hd95 == pytest.approx(3.0)
    assert score_surfaces([distances], 3.0).surface_dice == 1.0
    equal = score_surfaces([measure_distances(cube(2, 10), cube(2, 10), axes)], 0.0)
    assert (equal.surface_dice, equal.hd95) == (1.0, 0.0)


def test_an_empty_mask_has_a_defined_score() -> None:
    full, empty = cube(2, 10), np.zeros((12, 12, 12), bool)
    scores = {
        name: score_surfaces([measure_distances(pair[0], pair[1], np.eye(3))], 2.0)
        for name, pair in {
            "both": (empty, empty),
            "prediction": (empty, full),
            "truth": (full, empty),
        }.items()
    }
    assert scores == {
        "both": SurfaceScore(1.0, 0.0, truth_empty=True, prediction_empty=True, unmatched=0),
        "prediction": SurfaceScore(
            0.0, None, truth_empty=False, prediction_empty=True, unmatched=1
        ),
        "truth": SurfaceScore(0.0, None, truth_empty=True, prediction_empty=False, unmatched=1),
    }
    assert score_surfaces([], 2.0) == scores["both"]


def test_parts_without_a_counterpart_cost_surface_dice_and_are_counted() -> None:
    line = np.ones((1, 4), bool)
    parts = [
        measure_distances(line, line, np.eye(2)),
        measure_distances(line, ~line, np.eye(2)),
    ]
    score = score_surfaces(parts, 2.0)
    assert score.surface_dice == pytest.approx(8 / 12)
    assert (score.hd95, score.unmatched) == (0.0, 1)
    # Each mask has foreground, but never in the same slice: no distance exists.
    apart = [measure_distances(line, ~line, np.eye(2)), measure_distances(~line, line, np.eye(2))]
    assert score_surfaces(apart, 2.0) == SurfaceScore(
        0.0, None, truth_empty=False, prediction_empty=False, unmatched=2
    )
