"""Which slices are the neighbours of a slice, and how they become one array."""

import numpy as np
import pytest

from contract.errors import DataError
from contract.imaging.slice_neighbours import (
    center_slice,
    find_neighbours,
    find_volume_neighbours,
    group_series,
    stack_slices,
)


def stacks(names: list[str], neighbours: int, patients: list[str] | None = None) -> list[list[str]]:
    """The names of the slices in the stack of each slice."""
    table = find_neighbours(names, neighbours, patients)
    assert table.shape == (len(names), 2 * neighbours + 1)
    return [[names[index] for index in row] for row in table]


def test_neighbours_have_the_next_numbers_in_any_order() -> None:
    names = ["P1-0009", "P1-0010", "P1-0008"]
    assert stacks(names, 1) == [
        ["P1-0008", "P1-0009", "P1-0010"],
        ["P1-0009", "P1-0010", "P1-0010"],
        ["P1-0008", "P1-0008", "P1-0009"],
    ]


def test_no_neighbours_are_a_stack_of_the_slice_alone() -> None:
    assert stacks(["P1-1", "P1-2"], 0) == [["P1-1"], ["P1-2"]]


def test_numbers_are_compared_as_numbers() -> None:
    assert stacks(["P1-9", "P1-10"], 1) == [["P1-9", "P1-9", "P1-10"], ["P1-9", "P1-10", "P1-10"]]


def test_in_a_gap_the_nearest_slice_towards_the_center_is_repeated() -> None:
    # Without 4, 5 and 8.
    names = [f"P1-{number}" for number in (1, 2, 3, 6, 7)]
    numbers = [[int(name[3:]) for name in stack] for stack in stacks(names, 2)]
    assert numbers == [
        [1, 1, 1, 2, 3],
        [1, 1, 2, 3, 3],
        [1, 2, 3, 3, 3],
        [6, 6, 6, 7, 7],
        [6, 6, 7, 7, 7],
    ]


def test_a_slice_beyond_a_gap_of_one_is_a_neighbour_at_its_own_distance() -> None:
    assert stacks(["P1-1", "P1-3"], 2) == [
        ["P1-1", "P1-1", "P1-1", "P1-1", "P1-3"],
        ["P1-1", "P1-3", "P1-3", "P1-3", "P1-3"],
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("P1-0007", "P2-0008"),
        ("P1-0007", "P1-crop40-0008"),
        ("P1-0007", "P1-v2-0008"),
        ("P1-0007", "P1-0008-right"),
        ("a/0007", "b/0008"),
        ("scan1/slice", "scan2/slice"),
        ("left", "right"),
    ],
)
def test_slices_of_two_series_are_not_neighbours(first: str, second: str) -> None:
    assert stacks([first, second], 1) == [[first] * 3, [second] * 3]


def test_slices_of_two_patients_are_not_neighbours_whatever_their_names() -> None:
    assert stacks(["7", "8"], 1, ["7", "8"]) == [["7"] * 3, ["8"] * 3]
    assert stacks(["7", "8"], 1, ["A", "A"]) == [["7", "7", "8"], ["7", "8", "8"]]


def test_text_after_the_number_is_part_of_the_series() -> None:
    assert stacks(["P1-7-ct", "P1-8-ct"], 1)[0] == ["P1-7-ct", "P1-7-ct", "P1-8-ct"]


def test_a_number_that_two_names_have_does_not_replace_the_slice_itself() -> None:
    table = find_neighbours(["P1-07", "P1-7", "P1-8"], 1)
    assert table[:, 1].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("num_slices", "neighbours"), [(1, 2), (2, 3), (9, 0), (9, 2)])
def test_volumes_have_the_neighbours_of_their_numbered_slices(
    num_slices: int, neighbours: int
) -> None:
    names = [f"P1-{number:04d}" for number in range(num_slices)]
    expected = find_neighbours(names, neighbours)
    assert np.array_equal(find_volume_neighbours(num_slices, neighbours), expected)


def test_a_stack_has_one_channel_for_each_slice() -> None:
    grey = np.full((4, 5, 1), 7, np.uint8)
    red = np.zeros((4, 5, 3), np.uint8)
    red[..., 0] = 100
    stack = stack_slices([grey, red, grey + 1], ["a", "b", "c"])
    assert (stack.shape, stack.dtype) == ((4, 5, 3), np.uint8)
    assert stack[0, 0].tolist() == [7, 30, 8]
    wide = stack_slices([grey, grey.astype(np.int32) - 1000, grey], ["a", "b", "c"])
    assert (wide.dtype, wide[0, 0].tolist()) == (np.int32, [7, -993, 7])


def test_slices_of_different_sizes_are_no_stack() -> None:
    slices = [np.zeros((4, 5, 1), np.uint8), np.zeros((6, 5, 1), np.uint8)]
    with pytest.raises(DataError, match="b has 5 x 6 pixels, but its neighbour a 5 x 4: slices"):
        stack_slices(slices, ["a", "b"])


def test_the_center_of_a_stack_is_the_slice_itself() -> None:
    stack = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    assert np.array_equal(center_slice(stack, 5), stack[..., 2:3])
    rgb, grey = stack[..., :3], stack[..., :1]
    assert center_slice(rgb, 1) is rgb
    assert center_slice(grey, 5) is grey


def test_a_series_is_in_the_order_of_its_numbers() -> None:
    names = ["P1-10", "P1-9", "P1-crop40-9", "alone", "P1-12", "P1-9"]
    patients = ["a", "a", "a", "a", "a", "b"]
    assert group_series(names, patients) == [[1, 0, 4], [2], [3], [5]]
