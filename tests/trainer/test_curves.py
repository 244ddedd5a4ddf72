import csv
import io

import numpy as np
import pytest

from trainer import curves, pictures


def history(epochs: int) -> list[dict[str, float]]:
    """A training that is best in its last but one epoch."""
    rows = []
    for epoch in range(1, epochs + 1):
        dice = epoch / 10 if epoch < epochs else 0.01
        rows.append(
            {
                "epoch": float(epoch),
                "loss": 1 / epoch,
                "dice_coef": dice + 0.05,
                "specificity": 0.99,
                "val_loss": 1.1 / epoch,
                "val_dice_coef": dice,
                "val_specificity": 0.98,
                "learning_rate": 1e-3 / epoch,
                "seconds": 2.5,
            }
        )
    return rows


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_metrics_table_holds_every_epoch_once():
    rows = read(curves.metrics_csv(history(3)))
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
    rows = read(curves.losses_csv(history(2)))
    assert rows == [
        {"epoch": "1", "loss": "1", "val_loss": "1.1"},
        {"epoch": "2", "loss": "0.5", "val_loss": "0.55"},
    ]


def test_a_float32_survives_the_table():
    score = float(np.float32(0.8383472))
    (row,) = read(curves.metrics_csv([{"epoch": 1.0, "dice_coef": score}]))
    assert np.float32(row["dice_coef"]) == np.float32(score)


def test_a_score_that_an_epoch_lacks_is_left_empty():
    rows = read(curves.losses_csv([{"epoch": 1.0, "loss": 1.0}, history(2)[1]]))
    assert [row["val_loss"] for row in rows] == ["", "0.55"]


@pytest.mark.parametrize("epochs", [0, 1, 5])
def test_the_curves_are_pictures(epochs):
    for png in (curves.metrics_png(history(epochs)), curves.losses_png(history(epochs))):
        picture = pictures.decode(png)
        assert picture.shape[0] > 200
        assert picture.shape[1] > 300


def test_the_same_history_draws_the_same_curves():
    assert curves.losses_png(history(4)) == curves.losses_png(history(4))


def test_the_best_epoch_is_marked():
    figure = curves.new_figure(4, 3)
    axis = figure.subplots()
    curves.draw_scores(axis, history(4), "dice_coef", "val_dice_coef")
    labels = axis.get_legend_handles_labels()[1]
    assert labels == ["training", "validation", "best epoch 3: 0.3"]


def test_the_best_epoch_of_a_loss_is_its_lowest():
    axis = curves.new_figure(4, 3).subplots()
    curves.draw_scores(axis, history(4), "dice_coef", "val_loss")
    assert axis.get_legend_handles_labels()[1][-1] == "best epoch 4: 0.01"


def test_nothing_is_marked_where_the_monitor_is_missing():
    axis = curves.new_figure(4, 3).subplots()
    curves.draw_scores(axis, history(4), "loss", "val_iou_coef")
    assert axis.get_legend_handles_labels()[1] == ["training", "validation"]
