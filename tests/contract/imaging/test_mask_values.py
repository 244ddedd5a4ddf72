"""The foreground of masks is decided from their values."""

import numpy as np
import pytest

from contract.errors import DataError
from contract.imaging.mask_values import (
    POSSIBLE_THRESHOLDS,
    count_values,
    decide_threshold,
    equivalent_threshold,
)


@pytest.mark.parametrize(
    ("values", "threshold"),
    [
        ([[0, 1], [0]], 0),
        ([[0, 255]], 127),
        ([[0, 2]], 1),
        ([[0, 700]], 350),
        ([[0], [0]], 127),
        # JPEG changes the values.
        ([[0, 1, 2, 250, 253, 255], [0, 3]], 127),
    ],
)
def test_the_threshold_is_between_background_and_foreground(
    values: list[list[int]], threshold: int
) -> None:
    masks = [(f"{index}.png", dict.fromkeys(each, 1)) for index, each in enumerate(values)]
    assert decide_threshold(masks) == threshold
    # One of the possible thresholds, known before the masks are, separates them alike.
    equivalent = equivalent_threshold(threshold, POSSIBLE_THRESHOLDS)
    for mask in values:
        assert [value > equivalent for value in mask] == [value > threshold for value in mask]


@pytest.mark.parametrize("values", [[0, 1, 2], [0, 100, 50], [0, 300, 301]])
def test_labels_are_an_error_that_names_a_file_and_the_setting(values: list[int]) -> None:
    masks = [("a.png", {0: 5}), ("b.png", dict.fromkeys(values, 1))]
    with pytest.raises(DataError, match=r"\(b\.png contains \d+\).* set data\.mask_threshold"):
        decide_threshold(masks)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_values_are_counted(dtype: type) -> None:
    assert count_values(np.array([[0, 7, 7], [0, 0, 9]], dtype)) == {0: 3, 7: 2, 9: 1}
