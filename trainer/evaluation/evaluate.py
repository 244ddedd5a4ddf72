"""The metrics of a bundle's masks, by patient, on one split of a dataset.

The SavedModel of the bundle is run as it is, on each slice at its own size, and its steps of
post-processing follow. Output files:

    evaluation.csv                       one row per patient and class
    worst.png, best.png                  slices with the lowest and the highest Dice
    worst-patients.png                   the three patients with the lowest Dice, with outlines
    worst-patient.png, best-patient.png  slices through the volume of one patient
    patients.png                         box plot of the metrics of patients
    reliability.csv, reliability.png     probabilities and frequencies by class, in ten bins
    masks/<slice>.png                    predicted masks, if requested (contract.imaging.encode)
    volumetry.csv, volumetry.json        milliliters, if the spacing of the slices is known
    summary.json                         the metrics over all patients; written last of these

contract.confusion defines the metrics and the case of an empty mask.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from contract import bundle as bundles
from contract.bundle import Manifest
from contract.config import Data, Predict
from contract.config.loader import load_config
from contract.confusion import ConfusionCounts, class_counts
from contract.errors import DataError
from contract.host_info import host_info
from contract.imaging.encode import encode_mask
from contract.progress import ProgressCallback, no_progress
from contract.storage import LocalStorage, Storage, open_storage
from contract.timestamps import utc_now
from trainer.data.dataset_index import SPLITS, Dataset, SliceRecord, Split
from trainer.data.importers.dataset_import import read_volume_records
from trainer.evaluation import previews
from trainer.evaluation.calibration import ReliabilityCounts
from trainer.evaluation.final_masks import PredictedSlice, finish_masks
from trainer.evaluation.limits import find_limits
from trainer.evaluation.mask_store import MaskStore
from trainer.evaluation.plots import draw_plots
from trainer.evaluation.results import write_results
from trainer.evaluation.scores import Evaluation, SliceScore, rank_patients, score_patients
from trainer.evaluation.slice_reader import (
    Mask,
    PredictSlices,
    Probability,
    SliceReader,
    batch_by_shape,
    load_saved_model,
    open_reader,
    read_ahead,
)
from trainer.evaluation.soft_scores import SliceSums, SoftScorer
from trainer.evaluation.surface_scorer import SurfaceScorer, find_distance_unit
from trainer.evaluation.surface_tolerance import SURFACE_TOLERANCE
from trainer.evaluation.volumetry import write_volumetry

log = logging.getLogger(__name__)

_MAX_LISTED = 5


def evaluate(
    bundle: Storage | Path,
    dataset: Dataset,
    split: Split,
    data: Data,
    predict: Predict,
    destination: Storage,
    on_progress: ProgressCallback = no_progress,
    save_masks: bool = False,
    surface_tolerance: float = SURFACE_TOLERANCE,
) -> Evaluation:
    """Evaluate a bundle on a split of a dataset, and write the files named above.

    Args:
        bundle: The bundle.
        dataset: The prepared slices.
        split: "train", "valid" or "test".
        data: The settings [data]: allow_patient_overlap.
        predict: The settings [predict]: batch_size.
        destination: Where the files are written.
        on_progress: Called after each slice.
        save_masks: Write the predicted masks too.
        surface_tolerance: The tolerance of the surface Dice: mm if the spacing of the slices is
            known, else pixels.

    Returns:
        The scores of slices and patients.

    Raises:
        DataError: The split is empty, or the network was trained on a patient of the split.
        BundleError, StorageError: The bundle or a slice cannot be read.

    Example:
        >>> result = evaluate(bundle, dataset, "test", config.data, config.predict, destination)
        >>> result.summary_of("dice").mean
    """
    records = dataset.select(split)
    if not records:
        raise DataError(
            f"the {split} split of {dataset.root} is empty, so nothing can be evaluated on it: "
            "choose another split, or add patients to it."
        )
    source = LocalStorage(bundle.absolute()) if isinstance(bundle, Path) else bundle
    folder = bundles.fetch(source)
    manifest = bundles.read_manifest(LocalStorage(folder))
    check_classes(manifest, dataset)
    check_patient_leakage(manifest, dataset, split, data)
    window, neighbours = manifest.intensity_scaling.window, manifest.neighbours
    reader = open_reader(dataset, records, window, neighbours)
    predict_slices = load_saved_model(folder)
    scorer = SoftScorer(
        load_config(folder / "config.toml").train, [each.name for each in manifest.classes]
    )
    volumes = read_volume_records(open_storage(dataset.root))
    unit = find_distance_unit(dataset.slices, volumes)
    surfaces = SurfaceScorer(records, volumes, len(manifest.classes), unit, surface_tolerance)
    reliability_counts = ReliabilityCounts(len(manifest.classes))
    counts_of: dict[SliceRecord, tuple[ConfusionCounts, ...]] = {}
    sums_of: defaultdict[str, list[SliceSums]] = defaultdict(list)
    masks = MaskStore()

    def predict_masks() -> Iterator[PredictedSlice]:
        for record, y_true, mask, probability in predict_split(
            records, reader, predict_slices, predict.batch_size
        ):
            sums_of[record.patient].append(scorer.sum_slice(y_true, probability))
            reliability_counts.add_slice(y_true, probability)
            yield record, y_true, mask

    for record, y_true, mask in finish_masks(predict_masks(), records, manifest.post_processing):
        counts_of[record] = class_counts(mask, y_true, len(manifest.classes))
        masks.put(record, mask)
        surfaces.add_slice(record, mask, y_true)
        if save_masks:
            destination.write(f"masks/{record.name}.png", encode_mask(mask, manifest.classes))
        on_progress(len(counts_of), len(records), "")
    scores = tuple(SliceScore(record, counts_of[record]) for record in records)
    patients = score_patients(scores, surfaces.scores)
    reliability = {
        each.name: reliability_counts.reliability(index)
        for index, each in enumerate(manifest.classes)
    }
    evaluation = Evaluation(
        manifest=manifest,
        settings=(folder / "config.toml").read_text(encoding="utf-8"),
        bundle=source.url,
        output=destination.url,
        dataset=dataset.root,
        fingerprint=dataset.fingerprint,
        split=split,
        patients=patients,
        distance_unit=unit,
        surface_tolerance=surface_tolerance,
        slices=scores,
        soft=scorer.score(sums for slices in sums_of.values() for sums in slices),
        patients_soft={patient: scorer.score(slices) for patient, slices in sums_of.items()},
        reliability=reliability,
        split_sizes={
            name: (len(dataset.patients(name)), len(dataset.select(name))) for name in SPLITS
        },
        limits=find_limits(dataset, split, manifest, volumes, unit),
        previews=previews.draw_previews(scores, rank_patients(patients), reader, masks.get),
        plots=draw_plots(patients, manifest.classes, reliability, unit),
        masks=masks,
        host_info=host_info(),
        created=utc_now(),
    )
    write_volumetry(scores, evaluation.classes, open_storage(dataset.root), destination)
    write_results(evaluation, destination)
    return evaluation


def check_classes(manifest: Manifest, dataset: Dataset) -> None:
    """DataError if the masks of the dataset do not have the classes of the bundle, in its order."""
    trained = [each.name for each in manifest.classes]
    present = [each.name for each in dataset.masks.classes]
    if trained != present:
        raise DataError(
            f"the masks of {dataset.root} have the classes {', '.join(present)}, but "
            f"{manifest.name} was trained on {', '.join(trained)}: set data.classes to these names "
            "in this order."
        )


def check_patient_leakage(manifest: Manifest, dataset: Dataset, split: Split, data: Data) -> None:
    """DataError (or, if overlap is allowed, a warning) for patients that the network has seen.

    Patients of the test split must not be in its training or validation data, and patients of the
    validation split not in its training data; the same holds for the bundles that its training
    started from. Slices other than those of the training are reported.
    """
    if dataset.fingerprint != manifest.dataset:
        log.warning(
            "the slices in %s (dataset %s) are not those that %s was trained on (dataset %s)",
            dataset.root,
            dataset.fingerprint,
            manifest.name,
            manifest.dataset,
        )
    reject_patient_leakage(manifest, dataset, split, data)
    if leakage := _describe_leakage(manifest, dataset, split):
        log.warning("%s; the metrics are not of new patients", leakage)


def reject_patient_leakage(manifest: Manifest, dataset: Dataset, split: Split, data: Data) -> None:
    """DataError as of check_patient_leakage, without its warnings."""
    leakage = _describe_leakage(manifest, dataset, split)
    if leakage and not data.allow_patient_overlap:
        raise DataError(
            f"{leakage}: use the slices and the splits.json of its training, or patients that are "
            "new to it; if other patients have the same names, set "
            "data.allow_patient_overlap = true."
        )


def _describe_leakage(manifest: Manifest, dataset: Dataset, split: Split) -> str | None:
    """The patients of a split that the network has seen, as the start of a message, if any."""
    earlier_splits = SPLITS[: SPLITS.index(split)]
    seen = manifest.seen_patients(earlier_splits)
    leaked = [patient for patient in dataset.patients(split) if patient in seen]
    if not leaked:
        return None
    more = f" and {len(leaked) - _MAX_LISTED} more" if leaked[_MAX_LISTED:] else ""
    origin = " or a bundle that its training started from" if manifest.parents else ""
    return (
        f"data leakage: bundle {manifest.name!r}{origin} was trained on patients of the {split} "
        f"split of {dataset.root} ({', '.join(leaked[:_MAX_LISTED])}{more})"
    )


def predict_split(
    records: Sequence[SliceRecord],
    reader: SliceReader,
    predict_slices: PredictSlices,
    batch_size: int,
) -> Iterator[tuple[SliceRecord, Mask, Mask, Probability]]:
    """Each slice with its ground truth, its predicted mask and its probabilities.

    The order is that of the batches: a slice of a rare shape waits until its batch is complete or
    all others are done.
    """
    for batch in batch_by_shape(read_ahead(records, reader), batch_size):
        masks, probabilities = predict_slices(np.stack([image for _, image, _ in batch]))
        for (record, _, y_true), mask, probability in zip(batch, masks, probabilities, strict=True):
            yield record, y_true, mask, probability
