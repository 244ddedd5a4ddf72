"""The plots of an evaluation: the metrics of patients, and the reliability of probabilities."""

from trainer.evaluation.scores import Evaluation
from trainer.visualization.box_plot import plot_groups
from trainer.visualization.reliability_plot import ReliabilityCurve, plot_reliability


def draw_plots(evaluation: Evaluation) -> dict[str, bytes]:
    """The plots of an evaluation, by name; PNGs."""
    classes = evaluation.manifest.classes
    curves = {
        each.name: ReliabilityCurve(
            reliability.mean_probability,
            reliability.fraction,
            reliability.pixels,
            each.color if len(classes) > 1 else None,
        )
        for each, reliability in zip(classes, evaluation.reliability.values(), strict=True)
    }
    title = "Dice by patient" if len(classes) > 1 else "Metrics by patient"
    return {
        "patients": plot_groups(evaluation.groups(), title),
        "reliability": plot_reliability(curves),
    }
