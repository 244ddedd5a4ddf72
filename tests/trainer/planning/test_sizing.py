"""The sizes of networks to choose from, and the time that remains to train them."""

from dataclasses import replace

import pytest

from tests.trainer.planning.fingerprints import CT, split_counts
from trainer.planning.sizing import (
    MIN_CROP_PATIENTS,
    candidate_shapes,
    choose_crop,
    crop_fingerprint,
    training_seconds,
)
from trainer.planning.step_time import Workers


def test_no_network_is_larger_than_the_median_slice() -> None:
    for sides in ((512, 512), (300, 400), (64, 1000), (24, 24), (70, 70), (1050, 4400)):
        fingerprint = replace(CT, height=sides[0], width=sides[1])
        shapes = candidate_shapes(fingerprint)
        assert all(shape.height <= sides[0] and shape.width <= sides[1] for shape in shapes)
        assert all(max(shape.height, shape.width) <= 2048 for shape in shapes)
        areas = [shape.height * shape.width for shape in shapes]
        assert areas == sorted(areas, reverse=True)


@pytest.mark.parametrize(
    ("sides", "input_sides", "num_layers"),
    [
        ((369, 374), (96, 96), 5),
        ((300, 400), (80, 112), 4),
        # 95 rows cannot become 96.
        ((95, 97), (88, 96), 4),
    ],
)
def test_sides_are_the_nearest_that_suit_the_levels(
    sides: tuple[int, int], input_sides: tuple[int, int], num_layers: int
) -> None:
    shapes = candidate_shapes(replace(CT, height=sides[0], width=sides[1]))
    assert (*input_sides, num_layers) in [
        (shape.height, shape.width, shape.num_layers) for shape in shapes
    ]


CENTRAL = replace(CT, foreground_rows=(0.204, 0.818), foreground_columns=(0.3, 0.97))
EVERYTHING = ((0.0, 1.0), (0.0, 1.0))


def test_the_part_with_all_foreground_has_a_margin_within_the_slice() -> None:
    assert choose_crop(CENTRAL, {}) == ((0.15, 0.87), (0.25, 1.0))
    assert choose_crop(CT, {}) == EVERYTHING
    few = replace(CENTRAL, patients=split_counts(MIN_CROP_PATIENTS - 1, 3, 3))
    assert choose_crop(few, {}) == EVERYTHING
    large = replace(CT, foreground_rows=(0.05, 0.95), foreground_columns=(0.2, 0.97))
    assert choose_crop(large, {}) == EVERYTHING
    assert choose_crop(CENTRAL, {"predict.sliding_window": True}) == EVERYTHING
    given = {"data.crop_rows": [0.1, 0.9]}
    assert choose_crop(CENTRAL, given) == ((0.1, 0.9), (0.25, 1.0))


def test_a_part_has_its_own_sizes_and_fractions() -> None:
    part = crop_fingerprint(CENTRAL, (0.25, 0.75), (0.2, 0.6))
    assert (part.height, part.width, part.max_height, part.max_width) == (256, 205, 256, 205)
    assert part.classes[0].fraction == pytest.approx(0.012 / 0.2)


def test_slices_that_have_to_be_cached_leave_less_time() -> None:
    workers = Workers(1, 2, 0, 8.0)
    many = replace(CT, slices=split_counts(40_000, 0, 0))
    assert 0 < training_seconds(many, workers, 15) < training_seconds(CT, workers, 15) < 900
    assert training_seconds(many, workers, 1) > 0
