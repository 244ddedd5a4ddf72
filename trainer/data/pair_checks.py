"""Checks of paired images and masks: every file is decoded once before training."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from contract.config import Data
from contract.errors import DataError
from contract.imaging.decode import decode_image, decode_mask
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

_READERS = 8


@dataclass(frozen=True)
class DecodedPair:
    """A pair whose files were decoded.

    values: the number of pixels of the mask by value; digest: SHA-256 of both contents;
    pixel_digest: of the decoded image, or None if all its pixels are equal.
    """

    pair: Pair
    height: int
    width: int
    values: Mapping[int, int]
    digest: str
    pixel_digest: str | None


@dataclass(frozen=True)
class CheckedPair:
    """A decoded pair, and the foreground fraction of its mask."""

    pair: Pair
    decoded: DecodedPair
    foreground: float


def check_pairs(
    pairs: Sequence[Pair], source: Storage, thresholds: Iterable[int], on_progress: ProgressCallback
) -> tuple[list[DecodedPair], ForegroundCounter]:
    """Decode every pair; one DataError for all that cannot be used.

    The intensities above each of the mask thresholds are counted.
    """
    decoded: list[DecodedPair] = []
    foreground = ForegroundCounter()
    errors: list[str] = []
    with ThreadPoolExecutor(_READERS, thread_name_prefix="slices") as pool:
        results = pool.map(partial(_decode_pair, source=source, thresholds=thresholds), pairs)
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
    pair: Pair, source: Storage, thresholds: Iterable[int]
) -> tuple[DecodedPair, ForegroundHistograms] | str:
    """A decoded pair and its foreground, or what is wrong with it."""
    image_data, mask_data = source.read(pair.image), source.read(pair.mask)
    try:
        image, mask = decode_image(image_data, pair.image), decode_mask(mask_data, pair.mask)
    except DataError as error:
        return str(error).removesuffix(".")
    if image.shape[:2] != mask.shape:
        return f"{pair.image} is {_size(image)} pixels, but {pair.mask} is {_size(mask)}"
    is_blank = image.min() == image.max()
    decoded = DecodedPair(
        pair,
        *mask.shape,
        values=count_values(mask),
        digest=hashlib.sha256(
            hashlib.sha256(image_data).digest() + hashlib.sha256(mask_data).digest()
        ).hexdigest(),
        pixel_digest=None if is_blank else digest_pixels(image),
    )
    return decoded, count_foreground(image, mask, thresholds)


def digest_pixels(image: np.ndarray) -> str:
    """Thirty-two hex digits that identify the pixels of an image, whatever its file format."""
    header = f"{image.shape} {image.dtype}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(image).tobytes()).hexdigest()[:32]


def apply_threshold(decoded: Sequence[DecodedPair], threshold: int) -> list[CheckedPair]:
    """The pairs with the foreground fraction of each mask above a threshold."""
    return [
        CheckedPair(each.pair, each, foreground_fraction(each.values, threshold))
        for each in decoded
    ]


def foreground_fraction(values: Mapping[int, int], threshold: int) -> float:
    """The fraction of a mask's pixels whose value is greater than the threshold."""
    foreground = sum(count for value, count in values.items() if value > threshold)
    return foreground / sum(values.values())


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


def assign_splits(
    checked: Sequence[CheckedPair], data: Data, seed: int, folder: Storage
) -> dict[Split, list[CheckedPair]]:
    """The slices of each split: by folder, or by patient in an unsplit dataset."""
    if data.layout == "unsplit":
        fractions: dict[str, list[float]] = defaultdict(list)
        for each in checked:
            fractions[each.pair.patient].append(each.foreground)
        means = {patient: sum(values) / len(values) for patient, values in fractions.items()}
        patients = splits.load_or_create_splits(means, data, seed, folder)
        split_of = {patient: split for split in SPLITS for patient in patients[split]}
        checked = [
            replace(each, pair=replace(each.pair, split=split_of[each.pair.patient]))
            for each in checked
        ]
    return {split: [each for each in checked if each.pair.split == split] for split in SPLITS}


def check_splits(
    assigned: Mapping[Split, Sequence[CheckedPair]], threshold: int, source: Storage
) -> None:
    """DataError for a split that has no mask with foreground, or is empty; test may be empty."""
    for split, checked in assigned.items():
        if not checked and split != "test":
            raise DataError(f"{source.url}: the {split} split has no slices; add patients to it.")
        if checked and not any(each.foreground for each in checked):
            max_value = max(max(each.decoded.values) for each in checked)
            raise DataError(
                f"{source.url}: none of the {len(checked)} masks of the {split} split "
                f"({checked[0].pair.mask}, …) contains foreground; their maximum value is "
                f"{max_value}, and foreground is above data.mask_threshold = {threshold}: set "
                "data.mask_threshold below that maximum, or replace the masks."
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
