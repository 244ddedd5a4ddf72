import csv
import io

import numpy as np

from tests.histories import history
from trainer.training.loggers import history as tables


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_metrics_table_holds_every_epoch_once():
    rows = read(tables.metrics_csv(history(3)).decode())
    assert list(rows[0]) == [
        "epoch",
        "dice_coef",
        "val_dice_coef",
        "specificity",
        "val_specificity",
        "learning_rate",
        "seconds",
    ]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert rows[1]["val_dice_coef"] == "0.2"


def test_the_losses_table():
    rows = read(tables.losses_csv(history(2)).decode())
    assert rows == [
        {"epoch": "1", "loss": "1", "val_loss": "1.1"},
        {"epoch": "2", "loss": "0.5", "val_loss": "0.55"},
    ]


def test_a_float32_survives_the_table():
    score = float(np.float32(0.8383472))
    (row,) = read(tables.metrics_csv([{"epoch": 1.0, "dice_coef": score}]).decode())
    assert np.float32(row["dice_coef"]) == np.float32(score)


def test_a_score_that_an_epoch_lacks_is_left_empty():
    rows = read(tables.losses_csv([{"epoch": 1.0, "loss": 1.0}, history(2)[1]]).decode())
    assert [row["val_loss"] for row in rows] == ["", "0.55"]
