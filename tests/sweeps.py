"""The settings and the clock of a sweep that no Ray Tune runs."""

from typing import Any

from contract.config import Config


class FakeClock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def sweep_config(root: str, **sweep: Any) -> Config:
    """The settings of a sweep of four trials over the learning rate."""
    return Config.model_validate(
        {
            "run": {"name": "s", "seed": 5},
            "storage": {"root": root},
            "network": {"image_size": 32, "num_layers": 3},
            "train": {"num_workers": 1, "epochs": 9, "patience": None, "max_failures": 1},
            "sweep": {
                "num_samples": 4,
                "grace_period": 1,
                "space": {"train.learning_rate": {"loguniform": [1e-4, 1e-1]}},
                **sweep,
            },
        }
    )


def epoch_metrics(epoch: int, score: float) -> dict[str, float]:
    """The metrics of an epoch."""
    return {"epoch": float(epoch), "val_dice_coef": score}
