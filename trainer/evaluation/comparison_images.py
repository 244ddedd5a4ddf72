"""The slices of the patients on which two bundles differ most."""

from collections.abc import Sequence

import numpy as np

from contract.imaging.encode import encode_png
from trainer.data.dataset_index import Dataset, SliceRecord
from trainer.evaluation.comparison import Comparison
from trainer.evaluation.previews import FindMask, show_slice
from trainer.evaluation.scores import SliceScore
from trainer.evaluation.slice_reader import SliceReader, open_reader
from trainer.visualization.image_grid import image_grid
from trainer.visualization.overlays import (
    OUTLINE,
    OUTLINE_A,
    OUTLINE_B,
    Outline,
    RgbImage,
    draw_outlines,
    draw_overlay,
    find_close_up,
)

_MAX_PATIENTS = 3
_SLICES_OF_PATIENT = 2

_Shown = tuple[SliceReader, FindMask]


def draw_differences(comparison: Comparison, dataset: Dataset) -> bytes | None:
    """A row for each of the slices that differ most of the patients that differ most; a PNG.

    A row has the slice with the outlines of ground truth, A and B; a close-up of it; and the
    close-up with the right and wrong pixels of A and of B. None if no patient differs.
    """
    chosen = select_slices(comparison)
    if not chosen:
        return None
    records = dataset.select(comparison.a.split)
    shown = [
        (
            open_reader(
                dataset,
                records,
                each.manifest.intensity_scaling.window,
                each.manifest.neighbours,
            ),
            each.masks.get,
        )
        for each in (comparison.a, comparison.b)
    ]
    tiles, captions = [], []
    for scores in chosen:
        tiles += _draw_row(scores[0].slice, shown)
        captions += [scores[0].slice.name, scores[0].slice.patient]
        captions += [
            f"{name}: Dice {score.pooled.dice:.3f}"
            for name, score in zip("AB", scores, strict=True)
        ]
    return encode_png(image_grid(tiles, 4, captions))


def select_slices(comparison: Comparison) -> list[tuple[SliceScore, SliceScore]]:
    """The scores by A and B of at most two slices of each of the three patients that differ most.

    Patients are ordered by the difference of their Dice, slices by that of their wrong pixels.
    """
    differences = {
        a.patient: abs(difference)
        for a, b in comparison.patients
        if (difference := (b.metric("dice") or 0.0) - (a.metric("dice") or 0.0))
    }
    patients = sorted(differences, key=lambda name: (-differences[name], name))[:_MAX_PATIENTS]
    pairs = list(zip(comparison.a.slices, comparison.b.slices, strict=True))
    chosen = []
    for patient in patients:
        own = [pair for pair in pairs if pair[0].slice.patient == patient]
        own.sort(key=lambda pair: -abs(_wrong_pixels(pair[0]) - _wrong_pixels(pair[1])))
        chosen += own[:_SLICES_OF_PATIENT]
    return chosen


def _wrong_pixels(score: SliceScore) -> int:
    return score.pooled.fp + score.pooled.fn


def _draw_row(record: SliceRecord, shown: Sequence[_Shown]) -> list[RgbImage]:
    (image, mask, a), (_, _, b) = (show_slice(record, *each) for each in shown)
    window, classes = shown[0][0].window, shown[0][0].masks.classes
    rows, columns = find_close_up(mask | a | b, a)
    inner = rows, columns
    tiles = [
        draw_outlines(
            image[part],
            [
                Outline(mask[part], OUTLINE),
                Outline(a[part], OUTLINE_A),
                Outline(b[part], OUTLINE_B, dashed=True),
            ],
            window,
        )
        for part in (np.s_[:, :], inner)
    ]
    return tiles + [
        draw_overlay(image[inner], mask[inner], each[inner], window, classes=classes)
        for each in (a, b)
    ]
