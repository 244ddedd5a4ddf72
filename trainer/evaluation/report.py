"""The report of an evaluation: one HTML page that opens offline and can be printed."""

from contract.config import Config
from contract.storage import Storage, open_storage
from trainer.evaluation.plots import draw_plots
from trainer.evaluation.scores import METRICS, Evaluation, metric_titles, rank_patients
from trainer.visualization import html
from trainer.visualization.overlays import LEGEND, OUTLINE_A

_CURVES = ("train_metrics.png", "train_losses.png", "previews/epochs.png")


def write_report(
    bundle: Storage, evaluation: Evaluation, config: Config, destination: Storage
) -> None:
    """Write report.html, with the curves of the bundle's run if the bundle is stored in one."""
    run_url = bundle.url.removesuffix("/bundle")
    run = open_storage(run_url) if run_url != bundle.url else None
    destination.write("report.html", render_report(run, evaluation, config).encode())


def render_report(run: Storage | None, evaluation: Evaluation, config: Config) -> str:
    """Render the page: metrics, patients, previews, curves, settings and provenance.

    Args:
        run: The run that trained the bundle, for its curves and previews; None if unavailable.
        evaluation: The results.
        config: The settings of the evaluation.

    Returns:
        The HTML.
    """
    return html.render(
        "report.html",
        {
            "evaluation": evaluation,
            "manifest": evaluation.manifest,
            "classes": evaluation.manifest.classes,
            "class_metrics": {
                each.name: {name: evaluation.summary_of(name, each.name) for name in METRICS}
                for each in evaluation.manifest.classes
            },
            "metrics": {name: evaluation.summary_of(name) for name in METRICS},
            "titles": metric_titles(evaluation.distance_unit),
            "patients": rank_patients(evaluation.patients),
            "empty_masks": evaluation.empty_masks,
            "empty_surfaces": evaluation.empty_surfaces,
            "plots": draw_plots(evaluation),
            "outline": OUTLINE_A,
            "curves": read_curves(run),
            "phantom": config.data.source == "phantom",
            "other_slices": evaluation.fingerprint != evaluation.manifest.dataset,
            "other_settings": not evaluation.manifest.members
            and config.fingerprint() != evaluation.manifest.fingerprint,
            "fingerprint": config.fingerprint(),
            "colors": LEGEND,
        },
    )


def read_curves(run: Storage | None) -> dict[str, bytes]:
    """The curves and previews of a run that exist, by file name without suffix."""
    if run is None:
        return {}
    return {
        name.removesuffix(".png").replace("previews/", ""): run.read(name)
        for name in _CURVES
        if run.exists(name)
    }
