"""The sizes of networks to choose from, and the time that remains to train them."""

from dataclasses import replace

from tests.trainer.planning.fingerprints import CT, split_counts
from trainer.planning.sizing import candidate_shapes, training_seconds
from trainer.planning.step_time import Workers


def test_no_network_is_larger_than_the_median_slice() -> None:
    for sides in ((512, 512), (300, 400), (64, 1000), (24, 24), (70, 70)):
        fingerprint = replace(CT, height=sides[0], width=sides[1])
        shapes = candidate_shapes(fingerprint)
        assert all(shape.height <= sides[0] and shape.width <= sides[1] for shape in shapes)
        areas = [shape.height * shape.width for shape in shapes]
        assert areas == sorted(areas, reverse=True)


def test_slices_that_have_to_be_cached_leave_less_time() -> None:
    workers = Workers(1, 2, 0, 8.0)
    many = replace(CT, slices=split_counts(40_000, 0, 0))
    assert 0 < training_seconds(many, workers, 15) < training_seconds(CT, workers, 15) < 900
    assert training_seconds(many, workers, 1) > 0
