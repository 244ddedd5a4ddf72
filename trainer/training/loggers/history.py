"""The history of a training as tables.

A history is a list of rows, one an epoch: epoch, loss and val_loss, each metric and its val_
counterpart, learning_rate, seconds.
"""

import csv
import io
from collections.abc import Mapping, Sequence

Row = Mapping[str, float]

_LOSSES = ("loss", "val_loss")
_NO_METRICS = ("epoch", *_LOSSES, "learning_rate", "seconds")


def metrics_csv(history: Sequence[Row]) -> str:
    """epoch, each metric followed by its val_ counterpart, learning_rate, seconds."""
    metrics = [name for metric in metric_names(history) for name in (metric, f"val_{metric}")]
    return _table(history, ["epoch", *metrics, "learning_rate", "seconds"])


def losses_csv(history: Sequence[Row]) -> str:
    """epoch, loss, val_loss."""
    return _table(history, ["epoch", *_LOSSES])


def metric_names(history: Sequence[Row]) -> list[str]:
    """The metrics of a history, without their val_ counterparts, in the order they appear."""
    names = dict.fromkeys(name for row in history for name in row)
    metrics = (name.removeprefix("val_") for name in names if name not in _NO_METRICS)
    return list(dict.fromkeys(metrics))


def has_metric(history: Sequence[Row], key: str) -> bool:
    """Whether an epoch has a score."""
    return any(key in row for row in history)


def _table(history: Sequence[Row], columns: Sequence[str]) -> str:
    """CSV of the columns that the history has; a value that a row lacks is left empty."""
    kept = [name for name in columns if name == "epoch" or has_metric(history, name)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(kept)
    for row in history:
        writer.writerow([_text(name, row.get(name)) for name in kept])
    return stream.getvalue()


def _text(name: str, value: float | None) -> str:
    """Nine digits, which hold a float32 without loss; whole epochs without a point."""
    if value is None:
        return ""
    return str(round(value)) if name == "epoch" else f"{value:.9g}"
