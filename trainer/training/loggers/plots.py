"""The curves of a run: train_metrics.png and train_losses.png."""

from collections.abc import Sequence

from contract.imaging.segmentation_class import SegmentationClass
from contract.storage import Storage
from trainer.components.lr_schedule import best_epoch
from trainer.training.loggers.history import EpochMetrics, has_metric, metric_names


def write_curves(
    run: Storage,
    history: Sequence[EpochMetrics],
    monitor: str,
    classes: Sequence[SegmentationClass],
) -> None:
    """Draw the metrics and losses of every epoch, with the best epoch marked.

    The metrics of several classes share the panels of their means.
    """
    # matplotlib takes half a second to import, and most workers and trials never draw.
    from trainer.visualization import curves

    names = metric_names(history)
    of_classes = {f"{name}_{each.name}" for name in names for each in classes}
    panels = [name for name in names if name not in of_classes]
    if has_metric(history, "learning_rate"):
        panels.append("learning_rate")
    best = find_best_epoch(history, monitor)
    run.write("train_metrics.png", curves.plot_metrics(history, panels, best, classes))
    run.write("train_losses.png", curves.plot_losses(history, best))


def find_best_epoch(history: Sequence[EpochMetrics], monitor: str) -> EpochMetrics | None:
    """The metrics of the best epoch; None if no epoch has the monitored metric."""
    scored = [metrics for metrics in history if monitor in metrics]
    if not scored:
        return None
    return scored[best_epoch([metrics[monitor] for metrics in scored], monitor)]
