"""Neighbouring slices as further channels of a slice (2.5D), for training and inference alike.

Two slices are of one series if their file names are equal but for the last number in them:
P1-0007 and P1-0008 are, P1-0007 and P1-crop40-0008 are not. With n neighbours, the stack of a
slice has 2n + 1 channels: the slices with the numbers -n to +n from its own, the lowest number
first, the slice itself in the center. If no slice has such a number (at the ends of a series and in
gaps), the nearest existing one towards the center is repeated.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError
from contract.imaging.arrays import format_size, to_grey

_LAST_NUMBER = re.compile(r"([0-9]+)([^0-9/]*)$")
_Key = tuple[str, str, str, int]


def find_neighbours(
    names: Sequence[str], neighbours: int, patients: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """The stack of every slice.

    Args:
        names: The names of the slices without suffix; with the folder, if they have one.
        neighbours: The number of slices on each side.
        patients: The patient of each slice; slices of two patients are not neighbours. None: the
            names alone decide.

    Returns:
        Indices [slices, 2 * neighbours + 1] of the slices in each stack, lowest number first.
    """
    owners = [""] * len(names) if patients is None else patients
    keys = [_parse(name, owner) for name, owner in zip(names, owners, strict=True)]
    indices: dict[_Key, int] = {}
    for index, key in enumerate(keys):
        if key:
            indices.setdefault(key, index)
    table = np.empty((len(names), 2 * neighbours + 1), np.int64)
    for index, key in enumerate(keys):
        below = _find_side(indices, key, index, -1, neighbours)
        table[index] = [*reversed(below), index, *_find_side(indices, key, index, 1, neighbours)]
    return table


def find_volume_neighbours(num_slices: int, neighbours: int) -> NDArray[np.int64]:
    """The stacks of the slices of a volume, as find_neighbours returns them."""
    offsets = np.arange(-neighbours, neighbours + 1)
    return np.clip(np.arange(num_slices)[:, None] + offsets, 0, num_slices - 1)


def group_series(names: Sequence[str], patients: Sequence[str]) -> list[list[int]]:
    """The indices of the slices of each series, by their numbers; a slice without one is alone.

    Missing numbers do not end a series. names, patients: as for find_neighbours.
    """
    series: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    for index, (name, patient) in enumerate(zip(names, patients, strict=True)):
        key = _parse(name, patient)
        identity = key[:3] if key else (patient, name)
        series.setdefault(identity, []).append((key[3] if key else 0, index))
    return [[index for _, index in sorted(slices)] for slices in series.values()]


def stack_slices(slices: Sequence[NDArray], names: Sequence[str]) -> NDArray:
    """One array of the slices of a stack, each [H, W, 1 or 3]: grey, [H, W, slices].

    names: what an error calls the slices. Returns uint8 if all slices are, else int32. Raises
    DataError if their sizes differ.
    """
    for pixels, name in zip(slices, names, strict=True):
        if pixels.shape[:2] != slices[0].shape[:2]:
            raise DataError(
                f"{name} has {format_size(pixels)} pixels, but its neighbour {names[0]} "
                f"{format_size(slices[0])}: slices of a series must have one size."
            )
    return np.concatenate([to_grey(pixels) for pixels in slices], axis=-1)


def center_slice(image: NDArray, stack_size: int) -> NDArray:
    """The slice itself [..., 1] of a stack [..., stack_size]; any other image is unchanged."""
    if stack_size == 1 or image.shape[-1] != stack_size:
        return image
    return image[..., stack_size // 2 : stack_size // 2 + 1]


def _parse(name: str, patient: str) -> _Key | None:
    """What identifies a slice: patient, the name before and after its last number, the number."""
    match = _LAST_NUMBER.search(name)
    return (patient, name[: match.start()], match[2], int(match[1])) if match else None


def _find_side(
    indices: dict[_Key, int], key: _Key | None, index: int, step: int, neighbours: int
) -> list[int]:
    """The slices on one side of a slice, the nearest first."""
    side = []
    for distance in range(1, neighbours + 1):
        if key:
            index = indices.get((*key[:3], key[3] + step * distance), index)
        side.append(index)
    return side
