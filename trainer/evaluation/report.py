"""The report of an evaluation: one HTML page that opens offline and can be printed."""

from contract.config import Config
from contract.storage import Storage
from trainer.evaluation.evaluate import METRICS, Evaluation, PatientScore
from trainer.visualization import html, overlays

_TITLES = {"dice": "Dice", "iou": "IoU", "sensitivity": "Sensitivity", "specificity": "Specificity"}
_CURVES = ("train_metrics.png", "train_losses.png", "pictures/epochs.png")


def render_report(run: Storage | None, evaluation: Evaluation, config: Config) -> str:
    """The page: figures, patients, pictures, curves, settings and where all of it was made.

    run: where the training that made the bundle is kept, for its curves and pictures; None where
    it is not at hand. config: the settings the evaluation was started with.
    """
    return html.render(
        "report.html",
        {
            "it": evaluation,
            "manifest": evaluation.manifest,
            "figures": {_TITLES[name]: evaluation.summary_of(name) for name in METRICS},
            "patients": worst_first(evaluation),
            "empties": evaluation.empty_masks,
            "curves": curves_of(run),
            "phantom": config.data.source == "phantom",
            "other_slices": evaluation.fingerprint != evaluation.manifest.dataset,
            "other_settings": config.fingerprint() != evaluation.manifest.fingerprint,
            "fingerprint": config.fingerprint(),
            "colours": overlays.LEGEND,
        },
    )


def worst_first(evaluation: Evaluation) -> list[PatientScore]:
    """The patients by their Dice: who reads a report should meet its failures."""
    return sorted(evaluation.patients, key=lambda one: (one.counts.dice, one.patient))


def curves_of(run: Storage | None) -> dict[str, bytes]:
    """The curves and pictures of a run that are there, by file name without ending."""
    if run is None:
        return {}
    return {
        name.removesuffix(".png").replace("pictures/", ""): run.read(name)
        for name in _CURVES
        if run.exists(name)
    }
