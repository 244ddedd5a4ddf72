"""How good a bundle's masks are, by patient, on one split of a dataset.

The SavedModel of the bundle is run as it is, on each slice at its own size; no Keras and no code
of the training is needed. What is written:

    evaluation.csv                       one row for each patient
    worst.png, best.png                  slices with the lowest and the highest Dice
    worst-patient.png, best-patient.png  slices through the volume of one patient
    masks/<slice>.png                    predicted masks (0 and 255), only if asked for
    summary.json                         the figures over all patients; written last of these

contract.confusion tells how the figures are made and how the empty case is counted.
"""

import csv
import io
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from contract import bundle as bundles
from contract.bundle import Manifest
from contract.config import Data, Predict
from contract.confusion import ConfusionCounts, MetricSummary, confusion_counts, summarize
from contract.errors import DataError
from contract.host_info import HostInfo, host_info
from contract.storage import LocalStorage, Storage, open_storage
from trainer.data.dataset_index import SPLITS, Dataset, SliceRecord, Split, read_image, read_mask
from trainer.visualization import overlays

Pixels = NDArray[np.uint8 | np.int16]
Mask = NDArray[np.uint8]
Segment = Callable[[Pixels], Mask]
Read = tuple[SliceRecord, Pixels, Mask]

METRICS = ("dice", "iou", "sensitivity", "specificity")

log = logging.getLogger(__name__)

_READERS = 4
_TOLD = 5
_SHOWN_SLICES = 8
_SHOWN_OF_A_PATIENT = 12
_COLUMNS = 4


@dataclass(frozen=True)
class SliceScore:
    """The pixels of one slice."""

    slice: SliceRecord
    counts: ConfusionCounts


@dataclass(frozen=True)
class PatientScore:
    """The pixels of all of a patient's slices together; counts.dice is the volume's Dice."""

    patient: str
    slices: int
    counts: ConfusionCounts


@dataclass(frozen=True)
class EmptyMaskCounts:
    """How often the truth has no foreground, and how often something is marked there."""

    patients: int
    patients_marked: int
    slices: int
    slices_marked: int


@dataclass(frozen=True)
class Evaluation:
    """What a bundle scored on a split."""

    manifest: Manifest
    settings: str
    """The bundle's config.toml: what it was trained with."""
    bundle: str
    dataset: str
    """Where bundle and slices lie."""
    fingerprint: str
    """The dataset's."""
    split: Split
    patients: tuple[PatientScore, ...]
    """By name."""
    slices: tuple[SliceScore, ...]
    """In the dataset's order."""
    previews: Mapping[str, bytes]
    """PNGs by name: worst, best, worst-patient and, with two patients or more, best-patient."""
    host_info: HostInfo
    created: str
    """When, ISO 8601 in UTC."""

    def summary_of(self, name: str) -> MetricSummary:
        """The spread over patients of "dice", "iou", "sensitivity" or "specificity"."""
        return summarize(getattr(patient.counts, name) for patient in self.patients)

    @property
    def empty_masks(self) -> EmptyMaskCounts:
        """The empty case, counted."""
        patients = [one.counts for one in self.patients if one.counts.empty]
        slices = [one.counts for one in self.slices if one.counts.empty]
        return EmptyMaskCounts(
            patients=len(patients),
            patients_marked=sum(not counts.predicted_empty for counts in patients),
            slices=len(slices),
            slices_marked=sum(not counts.predicted_empty for counts in slices),
        )


def evaluate(
    bundle: Storage | Path,
    dataset: Dataset,
    split: Split,
    data: Data,
    predict: Predict,
    destination: Storage,
    advance: Callable[[int], None],
    keep_masks: bool = False,
) -> Evaluation:
    """Score a bundle on a split and write the tables and pictures named above.

    advance: told of each slice scored, len(dataset.of(split)) in all; keep_masks: write the
    predicted masks too. Raises BundleError, StorageError or DataError, the last also where the
    network has learnt from a patient of the split.
    """
    cases = dataset.select(split)
    if not cases:
        raise DataError(f"the {split} split of {dataset.root} is empty: choose another split.")
    source = LocalStorage(bundle.absolute()) if isinstance(bundle, Path) else bundle
    folder = bundles.fetch(source)
    manifest = bundles.read_manifest(LocalStorage(folder))
    check_patient_leakage(manifest, dataset, split, data)
    slices, segment = SliceReader(open_storage(dataset.root), data), load_saved_model(folder)
    counted: dict[SliceRecord, ConfusionCounts] = {}
    for case, mask, counts in score_slices(cases, slices, segment, predict.batch_size):
        counted[case] = counts
        if keep_masks:
            destination.write(f"masks/{case.name}.png", overlays.encode_png(mask * np.uint8(255)))
        advance(1)
    scores = tuple(SliceScore(case, counted[case]) for case in cases)
    evaluation = Evaluation(
        manifest=manifest,
        settings=(folder / "config.toml").read_text(encoding="utf-8"),
        bundle=source.url,
        dataset=dataset.root,
        fingerprint=dataset.fingerprint,
        split=split,
        patients=by_patient(scores),
        slices=scores,
        previews=draw_previews(scores, slices, segment),
        host_info=host_info(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_results(evaluation, destination)
    return evaluation


def check_patient_leakage(manifest: Manifest, dataset: Dataset, split: Split, data: Data) -> None:
    """DataError (or, where overlap is allowed, a warning) for patients that are not new.

    Whom the network was tested on must not have trained or validated it, and whom it was
    validated on must not have trained it. Other slices than those of the training are told.
    """
    if dataset.fingerprint != manifest.dataset:
        log.warning(
            "the slices in %s (dataset %s) are not those that %s was trained on (dataset %s)",
            dataset.root,
            dataset.fingerprint,
            manifest.name,
            manifest.dataset,
        )
    earlier = SPLITS[: SPLITS.index(split)]
    learnt = {patient for name in earlier for patient in manifest.patients.get(name, ())}
    known = [patient for patient in dataset.patients(split) if patient in learnt]
    if not known:
        return
    more = f" and {len(known) - _TOLD} more" if known[_TOLD:] else ""
    fault = (
        f"{manifest.name} has learnt from patients of the {split} split of "
        f"{dataset.root} ({', '.join(known[:_TOLD])}{more})"
    )
    if not data.allow_patient_overlap:
        raise DataError(
            f"{fault}: give it the slices and the splits.json of its training or patients who are "
            "new to it; where others have the same names, set data.allow_patient_overlap = true."
        )
    log.warning("%s; the figures are not of new patients", fault)


def load_saved_model(folder: Path) -> Segment:
    """The bundle's SavedModel as a function from slices [B, H, W, C] to masks [B, H, W]."""
    loaded = tf.saved_model.load(str(folder / "saved_model"))

    def segment(slices: Pixels) -> Mask:
        name = "serving_default" if slices.dtype == np.uint8 else "int16"
        return loaded.signatures[name](slices=tf.constant(slices))["mask"].numpy()

    return segment


@dataclass(frozen=True)
class SliceReader:
    """The pixels of a dataset's cases."""

    storage: Storage
    data: Data

    @property
    def window(self) -> tuple[float, float]:
        """The raw intensities that pictures show as black and white."""
        return self.data.intensity_low, self.data.intensity_high

    def read(self, case: SliceRecord) -> Read:
        """The case, its image [H, W, C] and its truth [H, W]."""
        image = read_image(self.storage, case.image)
        return case, image, read_mask(self.storage, case.mask, self.data.mask_threshold)


def score_slices(
    cases: Sequence[SliceRecord], slices: SliceReader, segment: Segment, size: int
) -> Iterator[tuple[SliceRecord, Mask, ConfusionCounts]]:
    """Each case with its predicted mask and its counts, in batches of slices of one shape.

    The order is that of the batches: a slice of a rare shape waits until its batch is full or
    all others are done.
    """
    for batch in batches(read_ahead(cases, slices), size):
        masks = segment(np.stack([image for _, image, _ in batch]))
        for (case, _, truth), mask in zip(batch, masks, strict=True):
            yield case, mask, confusion_counts(mask, truth)


def read_ahead(cases: Sequence[SliceRecord], slices: SliceReader) -> Iterator[Read]:
    """The cases' pixels in order, a few decoded ahead while the network works."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="evaluate") as pool:
        coming: deque[Future[Read]] = deque()
        for case in cases:
            coming.append(pool.submit(slices.read, case))
            if len(coming) > 2 * _READERS:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def batches(slices: Iterable[Read], size: int) -> Iterator[list[Read]]:
    """At most `size` slices of the same shape and type at a time."""
    waiting: dict[tuple[object, ...], list[Read]] = {}
    for one in slices:
        batch = waiting.setdefault((one[1].shape, one[1].dtype.str), [])
        batch.append(one)
        if len(batch) == size:
            yield waiting.pop((one[1].shape, one[1].dtype.str))
    yield from waiting.values()


def by_patient(slices: Iterable[SliceScore]) -> tuple[PatientScore, ...]:
    """The counts of each patient's slices added up, by name."""
    counts: dict[str, list[ConfusionCounts]] = {}
    for one in slices:
        counts.setdefault(one.slice.patient, []).append(one.counts)
    return tuple(
        PatientScore(patient, len(found), sum(found, ConfusionCounts()))
        for patient, found in sorted(counts.items())
    )


def draw_previews(
    scores: Sequence[SliceScore], slices: SliceReader, segment: Segment
) -> dict[str, bytes]:
    """The pictures of an evaluation, by name."""
    ranked = worst_first(scores)
    shown = min(_SHOWN_SLICES, (len(ranked) + 1) // 2)
    volumes = sorted(by_patient(scores), key=lambda patient: patient.counts.dice)
    sheets = {
        "worst": with_close_ups(interleave_patients(ranked)[:shown], slices, segment),
        "best": with_close_ups(interleave_patients(ranked[::-1])[:shown], slices, segment),
        "worst-patient": volume_sheet(volumes[0].patient, scores, slices, segment),
    }
    if len(volumes) > 1:
        sheets["best-patient"] = volume_sheet(volumes[-1].patient, scores, slices, segment)
    return sheets


def worst_first(scores: Sequence[SliceScore]) -> list[SliceScore]:
    """Slices by their Dice, among equals the one with more wrong pixels first.

    Slices where nothing is and nothing is marked come only where there are no others.
    """
    telling = [one for one in scores if not (one.counts.empty and one.counts.predicted_empty)]
    return sorted(
        telling or scores, key=lambda one: (one.counts.dice, -one.counts.fp - one.counts.fn)
    )


def interleave_patients(ranked: Sequence[SliceScore]) -> list[SliceScore]:
    """The same slices, a first two of every patient before any third one."""
    seen: dict[str, int] = {}
    rounds = []
    for one in ranked:
        seen[one.slice.patient] = seen.get(one.slice.patient, 0) + 1
        rounds.append((seen[one.slice.patient] - 1) // 2)
    return [ranked[place] for place in np.argsort(rounds, kind="stable")]


def with_close_ups(chosen: Sequence[SliceScore], slices: SliceReader, segment: Segment) -> bytes:
    """Each slice as a whole and, right of it, the part around the truth; a PNG."""
    tiles, captions = [], []
    for one in chosen:
        image, truth, mask = predict_slice(one.slice, slices, segment)
        rows, columns = overlays.close_up(truth, mask)
        near = image[rows, columns], truth[rows, columns], mask[rows, columns]
        tiles += [
            overlays.draw_overlay(*part, window=slices.window)
            for part in ((image, truth, mask), near)
        ]
        captions += [one.slice.name, f"Dice {one.counts.dice:.3f} · {one.slice.patient}"]
    return overlays.encode_png(overlays.image_grid(tiles, _COLUMNS, captions))


def volume_sheet(
    patient: str, scores: Sequence[SliceScore], slices: SliceReader, segment: Segment
) -> bytes:
    """Slices evenly through a patient's volume; a PNG."""
    mine = [place for place, one in enumerate(scores) if one.slice.patient == patient]
    tiles, captions = [], []
    for place in overlays.evenly_spaced(mine, _SHOWN_OF_A_PATIENT):
        one = scores[place]
        image, truth, mask = predict_slice(one.slice, slices, segment)
        tiles.append(overlays.draw_overlay(image, truth, mask, slices.window))
        captions.append(f"{one.slice.name} · Dice {one.counts.dice:.2f}")
    return overlays.encode_png(overlays.image_grid(tiles, _COLUMNS, captions))


def predict_slice(
    case: SliceRecord, slices: SliceReader, segment: Segment
) -> tuple[Pixels, Mask, Mask]:
    """Image, truth and prediction of one slice, made again: masks are not kept in memory."""
    _, image, truth = slices.read(case)
    return image, truth, segment(image[None])[0]


def write_results(evaluation: Evaluation, destination: Storage) -> None:
    """Put the pictures and tables of an evaluation, summary.json last."""
    for name, png in evaluation.previews.items():
        destination.write(f"{name}.png", png)
    destination.write("evaluation.csv", patients_csv(evaluation.patients).encode())
    destination.write("summary.json", json.dumps(summary(evaluation), indent=2).encode())


def patients_csv(patients: Iterable[PatientScore]) -> str:
    """evaluation.csv: one row for each patient; an undefined figure is left empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["patient", "slices", *METRICS, "tp", "fp", "fn", "tn", "empty"])
    for one in patients:
        figures = [getattr(one.counts, name) for name in METRICS]
        texts = ["" if figure is None else f"{figure:.6g}" for figure in figures]
        pixels = [getattr(one.counts, name) for name in ("tp", "fp", "fn", "tn")]
        empty = "yes" if one.counts.empty else "no"
        writer.writerow([one.patient, one.slices, *texts, *pixels, empty])
    return stream.getvalue()


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """summary.json: the figures over patients and what they were made of and with."""
    manifest = evaluation.manifest
    return {
        "split": evaluation.split,
        "patients": len(evaluation.patients),
        "slices": len(evaluation.slices),
        **{name: asdict(evaluation.summary_of(name)) for name in METRICS},
        "empty": asdict(evaluation.empty_masks),
        "model": {
            "name": manifest.name,
            "bundle": evaluation.bundle,
            "fingerprint": manifest.fingerprint,
            "commit": manifest.commit,
            "machine": manifest.machine,
            "created": manifest.created,
        },
        "dataset": {
            "root": evaluation.dataset,
            "fingerprint": evaluation.fingerprint,
            "trained_on": manifest.dataset,
        },
        "environment": evaluation.host_info,
        "created": evaluation.created,
    }
