"""The metrics as columns of a table on a terminal of 80 characters."""

from collections.abc import Iterable

from trainer.evaluation.scores import METRICS
from trainer.evaluation.surface_scorer import DistanceUnit

_HEADINGS = {
    "dice": "dice",
    "iou": "IoU",
    "precision": "prec.",
    "sensitivity": "sens.",
    "specificity": "spec.",
    "volume_difference": "vol.diff.",
    "surface_dice": "NSD",
}
_WIDTHS = {"volume_difference": 10, "hd95": 8}
_WIDTH = 7


def format_headings(unit: DistanceUnit) -> str:
    """The headings of METRICS; unit: that of HD95. NSD is the surface Dice."""
    headings = {**_HEADINGS, "hd95": f"HD95/{unit}"}
    return "".join(f"{headings[name]:>{_WIDTHS.get(name, _WIDTH)}}" for name in METRICS)


def format_values(values: Iterable[float | None]) -> str:
    """The values of METRICS below their headings; a dash for None."""
    return "".join(
        f"{'–' if value is None else f'{value:.3f}':>{_WIDTHS.get(name, _WIDTH)}}"
        for name, value in zip(METRICS, values, strict=True)
    )
