"""Two bundles on the same patients of one split, with the uncertainty of their difference.

Output files:

    a/, b/           the evaluations of both bundles, with their reports (evaluate.py)
    compare.csv      one row per patient and class: each metric by A, by B, and B minus A
    pairs.png        Dice of each patient by A and B
    differences.png  slices of the patients that differ most
    compare.html     all of it
    compare.json     means, differences with their intervals, p-values; written last
"""

from collections.abc import Sequence
from dataclasses import dataclass

from contract import bundle as bundles
from contract.bundle import Manifest
from contract.config import Config
from contract.errors import DataError
from contract.progress import ProgressCallback, no_progress
from contract.storage import Storage
from trainer.data.dataset_index import Dataset, Split
from trainer.data.pair_checks import digest_of
from trainer.evaluation.comparison import Comparison
from trainer.evaluation.comparison_files import write_comparison
from trainer.evaluation.comparison_images import draw_differences
from trainer.evaluation.evaluate import evaluate, reject_patient_leakage
from trainer.evaluation.report import write_report
from trainer.evaluation.scores import Evaluation
from trainer.evaluation.surface_tolerance import SURFACE_TOLERANCE


@dataclass(frozen=True)
class ComparedBundle:
    """One of the two bundles."""

    reference: str
    """What the user calls it."""
    bundle: Storage
    config: Config
    """Its settings, with those that the evaluation replaces."""


def compare(
    a: ComparedBundle,
    b: ComparedBundle,
    dataset: Dataset,
    split: Split,
    destination: Storage,
    on_progress: ProgressCallback = no_progress,
    surface_tolerance: float = SURFACE_TOLERANCE,
) -> Comparison:
    """Evaluate two bundles on the patients of a split, and write the files named above.

    Args:
        a: The first bundle; its settings say how the dataset is read.
        b: The second bundle.
        dataset: The prepared slices.
        split: "train", "valid" or "test".
        destination: Where the files are written.
        on_progress: Called after each slice of each bundle.
        surface_tolerance: The tolerance of the surface Dice, as for evaluate.

    Returns:
        The metrics of all patients by both bundles.

    Raises:
        DataError: The bundles have different classes, the split is empty, or one of the networks
            was trained on a patient of the split.
        BundleError, StorageError: A bundle or a slice cannot be read.
    """
    check_comparable(a, b, dataset, split)
    is_phantom = a.config.data.source == "phantom"
    total = 2 * len(dataset.select(split))
    evaluations: list[Evaluation] = []
    for index, (name, each) in enumerate((("a", a), ("b", b))):

        def report_progress(done: int, _: int | None, note: str, start: int = index) -> None:
            on_progress(start * total // 2 + done, total, note)

        storage = destination.child(name)
        evaluation = evaluate(
            each.bundle,
            dataset,
            split,
            a.config.data,
            a.config.predict,
            storage,
            report_progress,
            surface_tolerance=surface_tolerance,
        )
        write_report(each.bundle, evaluation, each.config, storage, is_phantom=is_phantom)
        evaluations.append(evaluation)
    comparison = Comparison(
        (a.reference, b.reference), *evaluations, seed=a.config.run.seed, output=destination.url
    )
    png = draw_differences(comparison, dataset)
    write_comparison(comparison, png, destination, is_phantom=is_phantom)
    return comparison


def check_comparable(a: ComparedBundle, b: ComparedBundle, dataset: Dataset, split: Split) -> None:
    """DataError if two bundles cannot be compared on a split; the message names the bundle."""
    manifests = [bundles.read_manifest(each.bundle) for each in (a, b)]
    first, second = map(_class_names, manifests)
    if first != second:
        raise DataError(
            f"{a.reference} has the classes {', '.join(first)}, but {b.reference} has "
            f"{', '.join(second)}: only bundles with the same classes in the same order can be "
            "compared."
        )
    for each, manifest in zip((a, b), manifests, strict=True):
        try:
            # evaluate warns of what is allowed, once for each bundle.
            reject_patient_leakage(manifest, dataset, split, a.config.data)
        except DataError as error:
            raise DataError(f"{each.reference}: {error}") from error


def comparison_name(bundles_: Sequence[Storage], dataset: Dataset, split: Split) -> str:
    """The name of the folder of a comparison: the same for the same bundles and slices."""
    identified = [bundles.identify(each) for each in bundles_]
    content = [*(digest for _, digest in identified), dataset.fingerprint, split]
    names = "-".join(manifest.name for manifest, _ in identified)
    return f"{names}-{split}-{digest_of(content)[:8]}"


def _class_names(manifest: Manifest) -> list[str]:
    return [each.name for each in manifest.classes]
