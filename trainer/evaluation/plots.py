"""The plots of an evaluation: the metrics of patients, and the reliability of probabilities."""

from collections.abc import Mapping, Sequence

from contract.imaging.segmentation_class import SegmentationClass
from trainer.evaluation.calibration import Reliability
from trainer.evaluation.scores import PatientScore, metric_titles
from trainer.evaluation.surface_scorer import DistanceUnit
from trainer.visualization.box_plot import plot_groups
from trainer.visualization.reliability_plot import ReliabilityCurve, plot_reliability


def draw_plots(
    patients: Sequence[PatientScore],
    classes: Sequence[SegmentationClass],
    reliability: Mapping[str, Reliability],
    distance_unit: DistanceUnit,
) -> dict[str, bytes]:
    """The plots of an evaluation, "patients" and "reliability", by name; PNGs.

    reliability: of each class, in their order.
    """
    curves = {
        each.name: ReliabilityCurve(
            of_class.mean_probability,
            of_class.fraction,
            of_class.pixels,
            each.color if len(classes) > 1 else None,
        )
        for each, of_class in zip(classes, reliability.values(), strict=True)
    }
    title = "Dice by patient" if len(classes) > 1 else "Metrics by patient"
    groups = _metric_groups(patients, [each.name for each in classes], distance_unit)
    return {"patients": plot_groups(groups, title), "reliability": plot_reliability(curves)}


def _metric_groups(
    patients: Sequence[PatientScore], classes: Sequence[str], distance_unit: DistanceUnit
) -> dict[str, list[float]]:
    """The values over patients to plot side by side, by title: metrics of 0 to 1.

    With several classes, the Dice of each. Undefined values are left out.
    """
    if len(classes) > 1:
        columns = {
            name: [patient.class_metrics("dice")[index] for patient in patients]
            for index, name in enumerate(classes)
        }
    else:
        titles = metric_titles(distance_unit)
        columns = {
            titles[name]: [patient.metric(name) for patient in patients]
            for name in ("dice", "iou", "precision", "sensitivity", "surface_dice")
        }
    defined = {
        title: [value for value in values if value is not None] for title, values in columns.items()
    }
    return {title: values for title, values in defined.items() if values}
