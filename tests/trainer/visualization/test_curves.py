import pytest

from tests.histories import history
from trainer.visualization import curves, overlays


@pytest.mark.parametrize("epochs", [0, 1, 5])
def test_the_curves_are_pictures(epochs):
    for png in (curves.metrics_png(history(epochs)), curves.losses_png(history(epochs))):
        picture = overlays.decode_png(png)
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
