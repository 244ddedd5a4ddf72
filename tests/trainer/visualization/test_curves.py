import pytest

from contract.imaging.encode import decode_png
from tests.histories import history
from trainer.visualization import curves


@pytest.mark.parametrize("epochs", [0, 1, 5])
def test_the_curves_are_images(epochs):
    for png in (
        curves.plot_metrics(history(epochs), ["dice_coef", "specificity", "learning_rate"]),
        curves.plot_losses(history(epochs)),
    ):
        image = decode_png(png)
        assert image.shape[0] > 200
        assert image.shape[1] > 300


def test_the_same_history_draws_the_same_curves():
    assert curves.plot_losses(history(4)) == curves.plot_losses(history(4))


def test_the_best_epoch_is_marked():
    figure = curves.new_figure(4, 3)
    axis = figure.subplots()
    curves.draw_scores(axis, history(4), "dice_coef", history(4)[2])
    labels = axis.get_legend_handles_labels()[1]
    assert labels == ["training", "validation", "best epoch 3: 0.3"]


def test_nothing_is_marked_without_a_best_epoch():
    axis = curves.new_figure(4, 3).subplots()
    curves.draw_scores(axis, history(4), "loss")
    assert axis.get_legend_handles_labels()[1] == ["training", "validation"]
