"""The curves of a run and the best epoch in them."""

from pathlib import Path

from contract.imaging.encode import decode_png
from contract.imaging.segmentation_class import create_classes, single_foreground
from contract.storage import LocalStorage
from tests.histories import history
from trainer.training.loggers.plots import find_best_epoch, write_curves


def test_both_curves_are_written(tmp_path: Path) -> None:
    run = LocalStorage(tmp_path)
    write_curves(run, history(3), "val_dice_coef", single_foreground())
    for name in ("train_metrics.png", "train_losses.png"):
        assert decode_png(run.read(name)).shape[2] == 3


def test_classes_share_the_panels_of_their_means(tmp_path: Path) -> None:
    run, classes = LocalStorage(tmp_path), create_classes({"liver": 1, "coef": 2})
    write_curves(run, history(3), "val_dice_coef", classes)
    means = decode_png(run.read("train_metrics.png"))
    of_classes = [
        metrics | {f"val_dice_coef_{each.name}": 0.3 for each in classes} for metrics in history(3)
    ]
    write_curves(run, of_classes, "val_dice_coef", classes)
    drawn = decode_png(run.read("train_metrics.png"))
    assert drawn.shape == means.shape
    assert (drawn != means).any()


def test_the_best_epoch_has_the_highest_metric_or_the_lowest_loss() -> None:
    by_dice = find_best_epoch(history(4), "val_dice_coef")
    by_loss = find_best_epoch(history(4), "val_loss")
    assert by_dice is not None
    assert by_loss is not None
    assert (by_dice["epoch"], by_loss["epoch"]) == (3.0, 4.0)


def test_without_the_monitored_metric_no_epoch_is_the_best() -> None:
    assert find_best_epoch(history(4), "val_iou_coef") is None
    assert find_best_epoch([], "val_loss") is None
