"""The report of an evaluation: one HTML page that opens offline and can be printed."""

from contract.config import Config, validate
from contract.config.loader import flatten_settings, parse_toml
from contract.storage import Storage, open_storage
from trainer.evaluation.scores import METRICS, Evaluation, metric_titles, rank_patients
from trainer.visualization import html
from trainer.visualization.overlays import LEGEND, OUTLINE_A

_CURVES = ("train_metrics.png", "train_losses.png", "previews/epochs.png")


def write_report(
    bundle: Storage,
    evaluation: Evaluation,
    config: Config,
    destination: Storage,
    *,
    is_phantom: bool,
) -> None:
    """Write report.html, with the curves of the bundle's run if the bundle is stored in one.

    config, is_phantom: as for render_report.
    """
    run_url = bundle.url.removesuffix("/bundle")
    run = open_storage(run_url) if run_url != bundle.url else None
    page = render_report(run, evaluation, config, is_phantom=is_phantom)
    destination.write("report.html", page.encode())


def render_report(
    run: Storage | None, evaluation: Evaluation, config: Config, *, is_phantom: bool
) -> str:
    """Render the page: metrics, patients, previews, curves, settings and provenance.

    Args:
        run: The run that trained the bundle, for its curves and previews; None if unavailable.
        evaluation: The results.
        config: The settings of the bundle, with those that the evaluation replaces.
        is_phantom: Whether the slices are those of the phantom.

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
            "plots": evaluation.plots,
            "outline": OUTLINE_A,
            "curves": read_curves(run),
            "phantom": is_phantom,
            "other_slices": evaluation.fingerprint != evaluation.manifest.dataset,
            "other_settings": _changed_settings(evaluation, config),
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


def _changed_settings(evaluation: Evaluation, config: Config) -> list[str]:
    """The training settings of an evaluation that are not those of the bundle's config.toml.

    Fingerprints do not tell: a bundle may be older than some of the settings.
    """
    origin = f"{evaluation.bundle}/config.toml"
    trained = validate(parse_toml(evaluation.settings, origin), origin)
    before, now = (flatten_settings(each.training_settings()) for each in (trained, config))
    return sorted(key for key in before | now if before.get(key) != now.get(key))
