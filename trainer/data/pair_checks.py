"""Checks of paired images and masks: every file is decoded once before training."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from contract.config import Data
from contract.errors import DataError
from contract.imaging.decode import decode_image, decode_mask
from contract.progress import ProgressCallback
from contract.storage import Storage
from trainer.data import splits
from trainer.data.pairing import Pair, raise_data_errors
from trainer.data.splits import SPLITS, Split

_READERS = 8


@dataclass(frozen=True)
class CheckedPair:
    """A pair whose files were decoded.

    max_value: the greatest value of the mask; digest: SHA-256 of both contents.
    """

    pair: Pair
    height: int
    width: int
    foreground: float
    max_value: int
    digest: str


def check_pairs(
    pairs: Sequence[Pair], data: Data, source: Storage, on_progress: ProgressCallback
) -> list[CheckedPair]:
    """Decode every pair; one DataError for all that cannot be used."""
    checked: list[CheckedPair] = []
    errors: list[str] = []
    with ThreadPoolExecutor(_READERS, thread_name_prefix="slices") as pool:
        results = pool.map(partial(_check_pair, source=source, data=data), pairs)
        for done, result in enumerate(results, start=1):
            if isinstance(result, CheckedPair):
                checked.append(result)
            else:
                errors.append(result)
            on_progress(done, len(pairs), "checked")
    raise_data_errors(errors, source)
    return checked


def _check_pair(pair: Pair, source: Storage, data: Data) -> CheckedPair | str:
    """A checked pair, or what is wrong with it."""
    image_data, mask_data = source.read(pair.image), source.read(pair.mask)
    try:
        image, mask = decode_image(image_data, pair.image), decode_mask(mask_data, pair.mask)
    except DataError as error:
        return str(error).removesuffix(".")
    if image.shape[:2] != mask.shape:
        return f"{pair.image} is {_size(image)} pixels, but {pair.mask} is {_size(mask)}"
    return CheckedPair(
        pair,
        *mask.shape,
        foreground=int((mask > data.mask_threshold).sum()) / mask.size,
        max_value=int(mask.max()),
        digest=hashlib.sha256(
            hashlib.sha256(image_data).digest() + hashlib.sha256(mask_data).digest()
        ).hexdigest(),
    )


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
    assigned: Mapping[Split, Sequence[CheckedPair]], data: Data, source: Storage
) -> None:
    """DataError for a split that is empty, or that has no mask with foreground."""
    for split, checked in assigned.items():
        if not checked:
            raise DataError(f"{source.url}: the {split} split has no slices; add patients to it.")
        max_value = max(each.max_value for each in checked)
        if max_value <= data.mask_threshold:
            raise DataError(
                f"{source.url}: none of the {len(checked)} masks of the {split} split "
                f"({checked[0].pair.mask}, …) contains foreground; their maximum value is "
                f"{max_value}, and foreground is above data.mask_threshold = {data.mask_threshold}."
            )


def digest_of(value: Any) -> str:
    """SHA-256, in hex, of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
