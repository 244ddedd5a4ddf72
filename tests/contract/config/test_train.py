"""Training settings that contradict each other are rejected."""

from typing import Any

import pytest
from pydantic import ValidationError

from contract.config import Train


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "dice"}, "Input should be 'binary_crossentropy'"),
        (
            {"batch_size": 3, "num_workers": 2},
            r"batch_size = 3 must be divisible by train\.num_workers = 2",
        ),
        (
            {"clip_norm": 1.0, "clip_value": 1.0},
            r"set train\.clip_value or .*clip_norm, not both",
        ),
        ({"epochs": 3, "warmup_epochs": 3.0}, r"train\.warmup_epochs must be below train\.epochs"),
        ({"learning_rate": 0.0}, "greater than 0"),
        (
            {"batch_size": 8, "num_workers": 2, "accumulate": 3},
            r"train\.accumulate = 3 must divide the 4 samples of a worker",
        ),
        (
            {"loss": "lovasz_loss", "label_smoothing": 0.1},
            r"label_smoothing = 0\.1 needs a loss with cross-entropy, which lovasz_loss is not",
        ),
        (
            {"loss": "focal_loss", "dice_per_sample": True},
            "needs a loss with Dice, IoU or Tversky, which focal_loss is not",
        ),
        ({"boundary_width": 4}, r"train\.boundary_width = 4 must be odd"),
        ({"tversky_alpha": 0, "tversky_beta": 0}, r"train\.tversky_alpha or .* above 0"),
        (
            {"lr_schedule": "one_cycle", "warmup_epochs": 1},
            r"has a warm-up of its own: set train\.warmup_epochs = 0",
        ),
        ({"gpus_per_worker": 2}, "less than or equal to 1"),
    ],
)
def test_values_that_cannot_be_used_are_rejected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Train.model_validate(values)


def test_settings_at_their_limits_are_accepted() -> None:
    train = Train.model_validate({"epochs": 3, "warmup_epochs": 2.5, "batch_size": 6})
    assert (train.warmup_epochs, train.batch_size, train.num_workers) == (2.5, 6, 2)
    assert Train(clip_norm=1.0).clip_value is None
