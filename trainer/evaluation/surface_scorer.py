"""The surface metrics of patients, computed while their slices are predicted.

If every slice of the dataset belongs to a volume whose spacing is known (datasets of `segfleet
import`), distances are in mm and between the surfaces of the volume: slices are placed by their
numbers, slices that are missing have no foreground, and the affine matrix of the volume maps voxels
to mm, also if the gantry was tilted. Center crops are copies at another scale and are left out.

In all other datasets the distance between slices is unknown. Distances are then in pixels, between
the contours within each slice, and the contours of all slices of a patient are put together: a
contour is never compared with one of another slice.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.data.dataset_index import SliceRecord
from trainer.data.importers.slice_files import (
    VolumeRecord,
    index_of_file,
    is_center_crop,
    volume_of_file,
)
from trainer.evaluation.surface_distances import (
    SurfaceDistances,
    SurfaceScore,
    measure_distances,
    score_surfaces,
)

DistanceUnit = Literal["mm", "px"]

_Mask = NDArray[np.uint8]


class _CroppedSlice(NamedTuple):
    """Two masks of class indices, cropped to their foreground."""

    position: int
    top: int
    left: int
    prediction: _Mask
    ground_truth: _Mask


def find_distance_unit(
    slices: Sequence[SliceRecord], volumes: Mapping[str, VolumeRecord]
) -> DistanceUnit:
    """The unit of the distances of all splits of a dataset, so that they can be compared.

    Args:
        slices: Of all splits.
        volumes: The imported volumes by name; empty if the dataset was not imported.
    """
    in_volumes = all(volume_of_file(record.image) in volumes for record in slices)
    return "mm" if in_volumes else "px"


class SurfaceScorer:
    """Computes the surface metrics of each patient as soon as all slices of the patient are there.

    It keeps the foreground of the patients whose slices are incomplete, at one byte per pixel, and
    of all others the scores alone.
    """

    def __init__(
        self,
        records: Sequence[SliceRecord],
        volumes: Mapping[str, VolumeRecord],
        num_classes: int,
        unit: DistanceUnit,
        tolerance: float,
    ) -> None:
        """Create a scorer.

        Args:
            records: All slices that will be added.
            volumes: The imported volumes by name; empty if the dataset was not imported.
            num_classes: The number of classes.
            unit: Of the distances: find_distance_unit of the dataset.
            tolerance: Of the surface Dice, in the unit of the distances.
        """
        self.unit: DistanceUnit = unit
        self.tolerance = tolerance
        self._volumes, self._num_classes = volumes, num_classes
        self._remaining = Counter(record.patient for record in records)
        self._slices: defaultdict[str, defaultdict[str, list[_CroppedSlice]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._scores: dict[str, tuple[SurfaceScore, ...]] = {}

    def add_slice(self, record: SliceRecord, prediction: _Mask, ground_truth: _Mask) -> None:
        """Add a slice; its masks: class indices [H, W]."""
        is_left_out = self.unit == "mm" and is_center_crop(record.image)
        if not is_left_out and (prediction.any() or ground_truth.any()):
            part, position = self._part_of(record.image)
            cropped = _crop(position, prediction, ground_truth)
            self._slices[record.patient][part].append(cropped)
        self._remaining[record.patient] -= 1
        if not self._remaining[record.patient]:
            self._scores[record.patient] = self._score(self._slices.pop(record.patient, {}))

    @property
    def scores(self) -> Mapping[str, tuple[SurfaceScore, ...]]:
        """The scores of each class, by patient, of the patients whose slices were all added."""
        return self._scores

    def _part_of(self, image: str) -> tuple[str, int]:
        """The volume of a slice and its position in it; without volumes each slice is a part."""
        if self.unit == "px":
            return image, 0
        return volume_of_file(image) or image, index_of_file(image)

    def _score(self, parts: Mapping[str, Sequence[_CroppedSlice]]) -> tuple[SurfaceScore, ...]:
        distances: list[list[SurfaceDistances]] = [[] for _ in range(self._num_classes)]
        for name, slices in parts.items():
            masks = _stack(slices)
            axes = np.eye(2)
            if self.unit == "mm":
                axes = np.array(self._volumes[name].affine, float)[:3, :3]
            else:
                masks = masks[0][0], masks[1][0]
            for index, of_class in enumerate(distances, start=1):
                of_class.append(measure_distances(masks[0] == index, masks[1] == index, axes))
        return tuple(score_surfaces(of_class, self.tolerance) for of_class in distances)


def _crop(position: int, prediction: _Mask, ground_truth: _Mask) -> _CroppedSlice:
    """A slice without its margins; it has foreground."""
    foreground = (prediction | ground_truth) != 0
    rows, columns = (np.flatnonzero(foreground.any(axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    inner = slice(top, int(rows[-1]) + 1), slice(left, int(columns[-1]) + 1)
    return _CroppedSlice(position, top, left, prediction[inner].copy(), ground_truth[inner].copy())


def _stack(slices: Sequence[_CroppedSlice]) -> tuple[_Mask, _Mask]:
    """The volumes of the prediction and of the ground truth in the box around all slices."""
    first = (
        min(each.position for each in slices),
        min(each.top for each in slices),
        min(each.left for each in slices),
    )
    shape = (
        max(each.position for each in slices) + 1 - first[0],
        max(each.top + each.prediction.shape[0] for each in slices) - first[1],
        max(each.left + each.prediction.shape[1] for each in slices) - first[2],
    )
    volumes = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for each in slices:
        height, width = each.prediction.shape
        top, left = each.top - first[1], each.left - first[2]
        box = each.position - first[0], slice(top, top + height), slice(left, left + width)
        volumes[0][box] = each.prediction
        volumes[1][box] = each.ground_truth
    return volumes
