"""Checks of paired images and masks: every file is decoded once before training."""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from contract.config import Data
from contract.errors import DataError
from contract.imaging.arrays import format_size
from contract.imaging.decode import decode_image, decode_mask, is_in_color
from contract.imaging.mask_encoding import MaskEncoding
from contract.imaging.mask_values import count_values
from contract.progress import ProgressCallback
from contract.storage import Storage
from trainer.data import splits
from trainer.data.foreground_intensities import (
    ForegroundCounter,
    ForegroundHistograms,
    count_foreground,
)
from trainer.data.pairing import Pair, raise_data_errors
from trainer.data.splits import SPLITS, Split

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodedPair:
    """A pair whose files were decoded.

    values: the number of pixels of the mask by value, or by class index if the classes were known;
    digest: SHA-256 of both contents; pixel_digest: of the decoded image, or None if all its pixels
    are equal; is_color: whether the image is in color.
    """

    pair: Pair
    height: int
    width: int
    values: Mapping[int, int]
    digest: str
    pixel_digest: str | None
    is_color: bool


@dataclass(frozen=True)
class CheckedPair:
    """A decoded pair, and the fraction of the pixels of its mask that each class has."""

    pair: Pair
    decoded: DecodedPair
    class_fractions: tuple[float, ...]

    @property
    def foreground(self) -> float:
        """The fraction of the pixels that are foreground of any class."""
        return sum(self.class_fractions)


def check_pairs(
    pairs: Sequence[Pair],
    source: Storage,
    encoding: MaskEncoding | None,
    thresholds: Iterable[int],
    on_progress: ProgressCallback,
) -> tuple[list[DecodedPair], ForegroundCounter]:
    """Decode every pair; one DataError for all that cannot be used.

    encoding: how the masks encode classes; None: what is foreground is decided from their values.
    thresholds: the intensities where a decoded mask is above each of them are counted.
    """
    decoded: list[DecodedPair] = []
    foreground = ForegroundCounter()
    errors: list[str] = []
    with ThreadPoolExecutor(source.num_readers, thread_name_prefix="slices") as pool:
        decode = partial(_decode_pair, source=source, encoding=encoding, thresholds=thresholds)
        results = pool.map(decode, pairs)
        for done, result in enumerate(results, start=1):
            if isinstance(result, str):
                errors.append(result)
            else:
                decoded.append(result[0])
                foreground.add(result[0].pair, result[1])
            on_progress(done, len(pairs), "checked")
    raise_data_errors(errors, source)
    return decoded, foreground


def _decode_pair(
    pair: Pair, source: Storage, encoding: MaskEncoding | None, thresholds: Iterable[int]
) -> tuple[DecodedPair, ForegroundHistograms] | str:
    """A decoded pair and its foreground, or what is wrong with it."""
    image_data, mask_data = source.read(pair.image), source.read(pair.mask)
    decode = encoding.decode if encoding else decode_mask
    try:
        image, mask = decode_image(image_data, pair.image), decode(mask_data, pair.mask)
    except DataError as error:
        return str(error).removesuffix(".")
    if image.shape[:2] != mask.shape:
        return (
            f"{pair.image} is {format_size(image)} pixels, but {pair.mask} is {format_size(mask)}"
        )
    is_blank = image.min() == image.max()
    decoded = DecodedPair(
        pair,
        *mask.shape,
        values=count_values(mask),
        digest=hashlib.sha256(
            hashlib.sha256(image_data).digest() + hashlib.sha256(mask_data).digest()
        ).hexdigest(),
        pixel_digest=None if is_blank else digest_pixels(image),
        is_color=is_in_color(image),
    )
    return decoded, count_foreground(image, mask, thresholds)


def digest_pixels(image: np.ndarray) -> str:
    """Thirty-two hex digits that identify the pixels of an image, whatever its file format."""
    header = f"{image.shape} {image.dtype}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(image).tobytes()).hexdigest()[:32]


def apply_encoding(decoded: Sequence[DecodedPair], encoding: MaskEncoding) -> list[CheckedPair]:
    """The pairs with the fraction of each mask that each class has."""
    return [
        CheckedPair(each.pair, each, class_fractions(each.values, encoding)) for each in decoded
    ]


def class_fractions(values: Mapping[int, int], encoding: MaskEncoding) -> tuple[float, ...]:
    """The fraction of a mask's pixels that each class has, from DecodedPair.values."""
    total = sum(values.values())
    if encoding.threshold is not None:
        above = sum(count for value, count in values.items() if value > encoding.threshold)
        return (above / total,)
    indices = range(1, len(encoding.classes) + 1)
    return tuple(values.get(index, 0) / total for index in indices)


def assign_splits(
    checked: Sequence[CheckedPair], data: Data, seed: int, folder: Storage
) -> dict[Split, list[CheckedPair]]:
    """The slices of each split: by folder, or by patient in an unsplit dataset; or by fold."""
    if data.layout == "unsplit":
        patients = splits.load_or_create_splits(_mean_foreground(checked), data, seed, folder)
        chosen: dict[str, Split] = {
            patient: split for split in SPLITS for patient in patients[split]
        }
        checked = _with_splits(checked, chosen)
    if data.folds:
        own = [each for each in checked if each.pair.split != "test"]
        folds = splits.draw_folds(_mean_foreground(own), data.folds, seed)
        split_of: dict[str, Split] = {
            patient: "valid" if number == data.fold else "train"
            for number, fold in enumerate(folds, start=1)
            for patient in fold
        }
        tests = [each for each in checked if each.pair.split == "test"]
        checked = [*_with_splits(own, split_of), *tests]
    return {split: [each for each in checked if each.pair.split == split] for split in SPLITS}


def _mean_foreground(checked: Iterable[CheckedPair]) -> dict[str, float]:
    """The mean foreground fraction of each patient's slices."""
    fractions: dict[str, list[float]] = defaultdict(list)
    for each in checked:
        fractions[each.pair.patient].append(each.foreground)
    return {patient: sum(values) / len(values) for patient, values in fractions.items()}


def _with_splits(
    checked: Iterable[CheckedPair], split_of: Mapping[str, Split]
) -> list[CheckedPair]:
    """The slices in the splits of their patients."""
    return [
        replace(each, pair=replace(each.pair, split=split_of[each.pair.patient]))
        for each in checked
    ]


def check_splits(
    assigned: Mapping[Split, Sequence[CheckedPair]], encoding: MaskEncoding, source: Storage
) -> None:
    """DataError for a split that is empty or has no foreground; test may be empty.

    Every class must be in the training split; for one that another split lacks there is a warning.
    """
    for split, checked in assigned.items():
        if not checked:
            if split == "test":
                continue
            raise DataError(f"{source.url}: the {split} split has no slices; add patients to it.")
        if not any(each.foreground for each in checked):
            raise DataError(_no_foreground_error(split, checked, encoding, source))
        totals = np.sum([each.class_fractions for each in checked], axis=0)
        missing = [
            each.name for each, total in zip(encoding.classes, totals, strict=True) if not total
        ]
        if missing and split == "train":
            raise DataError(
                f"{source.url}: no mask of the train split contains the class {missing[0]}: check "
                f"data.classes.{missing[0]}, or remove it."
            )
        if missing:
            _log.warning(
                "%s: no mask of the %s split contains %s: its metrics are not meaningful there",
                source.url,
                split,
                " or ".join(missing),
            )


def _no_foreground_error(
    split: Split, checked: Sequence[CheckedPair], encoding: MaskEncoding, source: Storage
) -> str:
    """The message for a split without foreground."""
    start = (
        f"{source.url}: none of the {len(checked)} masks of the {split} split "
        f"({checked[0].pair.mask}, …) contains "
    )
    if encoding.threshold is None:
        return f"{start}a class of data.classes: check the values there, or replace the masks."
    max_value = max(max(each.decoded.values) for each in checked)
    return (
        f"{start}foreground; their maximum value is {max_value}, and foreground is above "
        f"data.mask_threshold = {encoding.threshold}: set data.mask_threshold below that maximum, "
        "or replace the masks."
    )


def find_duplicates(
    assigned: Mapping[Split, Sequence[CheckedPair]],
) -> list[tuple[CheckedPair, CheckedPair]]:
    """Images with equal pixels in two splits; blank images are not compared."""
    first: dict[str, CheckedPair] = {}
    duplicates = []
    for checked in (each for split in SPLITS for each in assigned[split]):
        digest = checked.decoded.pixel_digest
        if digest is not None:
            other = first.setdefault(digest, checked)
            if other.pair.split != checked.pair.split:
                duplicates.append((other, checked))
    return duplicates


def digest_of(value: Any) -> str:
    """SHA-256, in hex, of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
