"""Largest components and holes of hand-made masks, in slices and in volumes."""

import numpy as np

from contract.imaging.components import (
    fill_holes,
    keep_largest_components,
    process_slice,
    process_volume,
)
from contract.imaging.post_processing import PostProcessing


def parse(*rows: str) -> np.ndarray:
    """A mask from text: "." is background."""
    return np.array([[0 if c == "." else int(c) for c in row] for row in rows], np.uint8)


def test_the_largest_component_of_each_class_is_kept() -> None:
    mask = parse("11...2", "11..2.", "....2.", "1.2...", ".1....", "......")
    # The 2s touch at a corner, as the 1s below do.
    expected = parse("11...2", "11..2.", "....2.", "......", "......", "......")
    np.testing.assert_array_equal(keep_largest_components(mask), expected)
    equal = parse("1.1", "1.1")
    np.testing.assert_array_equal(keep_largest_components(equal), parse("1..", "1.."))


def test_a_hole_is_background_that_a_class_encloses() -> None:
    mask = parse("1111111", "1.12..1", "111...1", "1111111", "..222..", "..2.2..", "...2...")
    expected = parse("1111111", "1112111", "1111111", "1111111", "..222..", "..222..", "...2...")
    np.testing.assert_array_equal(fill_holes(mask), expected)
    # Background leaks through edges only, and the border of the image is outside.
    np.testing.assert_array_equal(fill_holes(parse("1.1", "111")), parse("1.1", "111"))


def test_a_volume_is_one_body_along_its_first_axis() -> None:
    """Two slices of 3 x 4: each has two components, of which one goes through both slices."""
    first = parse("11..", "....", "...1")
    second = parse("...1", "....", "..11")
    volume = np.stack([first, second])
    steps = PostProcessing(largest_component="patient")
    expected = np.stack([parse("....", "....", "...1"), parse("....", "....", "..11")])
    np.testing.assert_array_equal(process_volume(volume, steps), expected)
    in_slices = PostProcessing(largest_component="slice")
    np.testing.assert_array_equal(process_slice(first, in_slices), parse("11..", "....", "...."))
    # Neither touches masks in the other scope.
    assert process_volume(volume, in_slices) is volume
    assert process_slice(first, steps) is first


def test_a_hole_of_a_slice_may_be_open_in_the_volume() -> None:
    ring, full = parse("111", "1.1", "111"), parse("111", "111", "111")
    steps = PostProcessing(fill_holes="patient")
    closed, open_above = np.stack([full, ring, full]), np.stack([ring, ring, full])
    np.testing.assert_array_equal(process_volume(closed, steps), np.stack([full] * 3))
    np.testing.assert_array_equal(process_volume(open_above, steps), open_above)
    np.testing.assert_array_equal(process_slice(ring, PostProcessing(fill_holes="slice")), full)


def test_holes_of_dropped_components_are_not_filled() -> None:
    mask = parse("111..", "1.1..", "111..", ".....", "1111.", "1..1.", "1111.")
    steps = PostProcessing(largest_component="slice", fill_holes="slice")
    expected = parse(".....", ".....", ".....", ".....", "1111.", "1111.", "1111.")
    np.testing.assert_array_equal(process_slice(mask, steps), expected)
    empty = np.zeros((4, 5), np.uint8)
    np.testing.assert_array_equal(process_slice(empty, steps), empty)
