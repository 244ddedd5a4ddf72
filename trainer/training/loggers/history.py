"""The history of a training run: the metrics of each epoch, and their CSV files.

The metrics of an epoch are: epoch (from 1), loss and val_loss, each metric and its val_
counterpart, learning_rate, seconds.
"""

from collections.abc import Mapping, Sequence

from contract.tables import to_csv

EpochMetrics = dict[str, float]
"""The metrics of one epoch, by name."""

History = Sequence[Mapping[str, float]]

_LOSSES = ("loss", "val_loss")
_NOT_METRICS = ("epoch", *_LOSSES, "learning_rate", "seconds")


def metrics_csv(history: History) -> bytes:
    """train_metrics.csv: epoch, each metric and its val_ counterpart, learning_rate, seconds."""
    names = [name for metric in metric_names(history) for name in (metric, f"val_{metric}")]
    return _history_csv(history, ["epoch", *names, "learning_rate", "seconds"])


def losses_csv(history: History) -> bytes:
    """train_losses.csv: epoch, loss, val_loss."""
    return _history_csv(history, ["epoch", *_LOSSES])


def metric_names(history: History) -> list[str]:
    """The metrics of a history, without their val_ counterparts, in order of appearance."""
    names = dict.fromkeys(name for metrics in history for name in metrics)
    return list(
        dict.fromkeys(name.removeprefix("val_") for name in names if name not in _NOT_METRICS)
    )


def has_metric(history: History, name: str) -> bool:
    """Whether any epoch has a metric of this name."""
    return any(name in metrics for metrics in history)


def _history_csv(history: History, columns: Sequence[str]) -> bytes:
    """CSV of the columns that the history has; a missing value is an empty field."""
    present = [name for name in columns if name == "epoch" or has_metric(history, name)]
    rows = [[_format(name, metrics.get(name)) for name in present] for metrics in history]
    return to_csv(present, rows)


def _format(name: str, value: float | None) -> str | None:
    """Nine digits, which represent a float32 exactly; the epoch without a decimal point."""
    if value is None:
        return None
    return str(round(value)) if name == "epoch" else f"{value:.9g}"
