"""The overlap of windows is one of three, from which their number per side follows."""

from typing import Any

import pytest
from pydantic import ValidationError

from contract.config import Predict


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"overlap": 0.25}, r"predict\.overlap = 0\.25 must be 0\.0, 0\.5 or 0\.75"),
        ({"overlap": 1.0}, "less than 1"),
        ({"threshold": 0.0}, "greater than 0"),
        ({"threshold": 1.0}, "less than 1"),
        ({"class_thresholds": {"liver": 0.0}}, "greater than 0"),
        ({"zooms": [0.9, 1.1]}, r"predict\.zooms = \[0\.9, 1\.1\] must contain 1\.0"),
        ({"zooms": [1.0, 4.0]}, "less than or equal to 2"),
        ({"shifts": [0.02, 0.02]}, r"predict\.shifts = \[0\.02, 0\.02\] has a value twice"),
        ({"flips": ["diagonal"]}, "'horizontal' or 'vertical'"),
        ({"fill_holes": "volume"}, "'off', 'slice' or 'patient'"),
    ],
)
def test_values_that_cannot_be_used_are_rejected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Predict.model_validate(values)


@pytest.mark.parametrize(("overlap", "windows"), [(0.0, 1), (0.5, 2), (0.75, 4)])
def test_the_overlap_determines_the_windows_per_side(overlap: float, windows: int) -> None:
    assert Predict(overlap=overlap).windows_per_side == windows


def test_classes_without_a_threshold_have_one_half() -> None:
    predict = Predict(threshold=0.3, class_thresholds={"kidney": 0.4})
    assert predict.thresholds(["liver", "kidney"]) == (0.5, 0.4)
    assert predict.thresholds(["liver"]) == (0.3,)
