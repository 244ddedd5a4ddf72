"""The preview images of an evaluation: the worst and the best slices and patients."""

from collections.abc import Callable, Sequence

import numpy as np

from contract.imaging.encode import encode_png
from trainer.data.dataset_index import SliceRecord
from trainer.evaluation.scores import PatientScore, SliceScore, rank_slices
from trainer.evaluation.slice_reader import Mask, Pixels, SliceReader
from trainer.visualization.image_grid import evenly_spaced, image_grid
from trainer.visualization.overlays import (
    OUTLINE,
    OUTLINE_A,
    Outline,
    RgbImage,
    draw_outlines,
    draw_overlay,
    find_close_up,
)

FindMask = Callable[[SliceRecord], Mask]
"""The predicted mask of a slice."""

_MAX_SLICES = 8
_MAX_SLICES_OF_PATIENT = 12
_MAX_PATIENTS = 3
_COLUMNS = 4


def draw_previews(
    scores: Sequence[SliceScore],
    patients: Sequence[PatientScore],
    reader: SliceReader,
    find_mask: FindMask,
) -> dict[str, bytes]:
    """The preview images of an evaluation, by name; PNGs. patients: from the lowest Dice up."""
    ranked = rank_slices(scores)
    count = min(_MAX_SLICES, (len(ranked) + 1) // 2)
    sheets = {
        "worst": slice_sheet(interleave_patients(ranked)[:count], reader, find_mask),
        "best": slice_sheet(interleave_patients(ranked[::-1])[:count], reader, find_mask),
        "worst-patients": patients_sheet(
            [each.patient for each in patients[:_MAX_PATIENTS]], scores, reader, find_mask
        ),
        "worst-patient": volume_sheet(patients[0].patient, scores, reader, find_mask),
    }
    if len(patients) > 1:
        best = patients[-1].patient
        sheets["best-patient"] = volume_sheet(best, scores, reader, find_mask)
    return sheets


def interleave_patients(ranked: Sequence[SliceScore]) -> list[SliceScore]:
    """The same slices, the first two of every patient before the third of any patient."""
    counts: dict[str, int] = {}
    rounds = []
    for score in ranked:
        patient = score.slice.patient
        counts[patient] = counts.get(patient, 0) + 1
        rounds.append((counts[patient] - 1) // 2)
    return [ranked[index] for index in np.argsort(rounds, kind="stable")]


def slice_sheet(scores: Sequence[SliceScore], reader: SliceReader, find_mask: FindMask) -> bytes:
    """Each slice and, to its right, a close-up of its ground truth; a PNG."""
    tiles, captions = [], []
    for score in scores:
        image, mask, prediction = show_slice(score.slice, reader, find_mask)
        rows, columns = find_close_up(mask, prediction)
        crop = image[rows, columns], mask[rows, columns], prediction[rows, columns]
        tiles += [
            draw_overlay(*part, window=reader.window, classes=reader.masks.classes)
            for part in ((image, mask, prediction), crop)
        ]
        captions += [
            score.slice.name,
            f"Dice {score.pooled.dice:.3f} · {score.slice.patient}",
        ]
    return encode_png(image_grid(tiles, _COLUMNS, captions))


def patients_sheet(
    patients: Sequence[str],
    scores: Sequence[SliceScore],
    reader: SliceReader,
    find_mask: FindMask,
) -> bytes:
    """A row of close-ups for each patient, with ground truth and prediction outlined; a PNG.

    They are evenly spaced among the slices with foreground in either, if there are any.
    """
    tiles: list[RgbImage] = []
    captions: list[str] = []
    for patient in patients:
        own = [score for score in scores if score.slice.patient == patient]
        informative = [s for s in own if not (s.pooled.empty and s.pooled.predicted_empty)] or own
        for index in evenly_spaced(range(len(informative)), _COLUMNS):
            score = informative[index]
            image, mask, prediction = show_slice(score.slice, reader, find_mask)
            part = find_close_up(mask | prediction, prediction)
            outlines = [Outline(mask[part], OUTLINE), Outline(prediction[part], OUTLINE_A)]
            tiles.append(draw_outlines(image[part], outlines, reader.window))
            captions.append(f"{score.slice.name} · Dice {score.pooled.dice:.2f}")
        missing = -len(tiles) % _COLUMNS
        tiles += [np.full((1, 1, 3), 255, np.uint8)] * missing
        captions += [""] * missing
    return encode_png(image_grid(tiles, _COLUMNS, captions))


def volume_sheet(
    patient: str, scores: Sequence[SliceScore], reader: SliceReader, find_mask: FindMask
) -> bytes:
    """Evenly spaced slices through the volume of a patient; a PNG."""
    indices = [index for index, score in enumerate(scores) if score.slice.patient == patient]
    tiles, captions = [], []
    for index in evenly_spaced(indices, _MAX_SLICES_OF_PATIENT):
        score = scores[index]
        image, mask, prediction = show_slice(score.slice, reader, find_mask)
        overlay = draw_overlay(image, mask, prediction, reader.window, classes=reader.masks.classes)
        tiles.append(overlay)
        captions.append(f"{score.slice.name} · Dice {score.pooled.dice:.2f}")
    return encode_png(image_grid(tiles, _COLUMNS, captions))


def show_slice(
    record: SliceRecord, reader: SliceReader, find_mask: FindMask
) -> tuple[Pixels, Mask, Mask]:
    """What is shown of a slice, its ground truth and its prediction."""
    _, image, mask = reader.read(record)
    return reader.shown_slice(image), mask, find_mask(record)
