"""From raw slices to masks with a bundle alone: no Keras, no code of the trainer."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from contract import bundle
from contract.bundle import Manifest
from contract.errors import DataError
from contract.host_info import cpu_count, gpu_count
from contract.imaging.arrays import to_slice
from contract.imaging.components import process_slice, process_volume
from contract.imaging.decode import decode_stack
from contract.imaging.slice_neighbours import find_volume_neighbours
from contract.progress import ProgressCallback, no_progress
from contract.storage import LocalStorage, Storage
from inference.engines import Engine, create_engine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segmentation:
    """The prediction for one slice."""

    mask: np.ndarray
    """uint8 [H, W] of class indices: 0 is the background, 1 the first of the bundle's classes;
    after the steps of post-processing with the scope "slice"."""
    probability: np.ndarray | None
    """float32 [H, W, K] in 0..1, of each class, if it was requested."""


@final
class Predictor:
    """A bundle that is ready to predict; made by load_predictor."""

    def __init__(self, manifest: Manifest, engine: Engine) -> None:
        self.manifest = manifest
        self.engine = engine

    def predict(self, image: np.ndarray | str | Path, *, probability: bool = False) -> Segmentation:
        """Predict the mask of one slice.

        Args:
            image: An array [H, W] or [H, W, C] with C = 1 (grey) or 3 (RGB), of uint8, uint16,
                int16 or int32, with the intensities of the files that the network was trained on;
                or the path of an image file. If the bundle has n neighbours (manifest.neighbours),
                C = 2n + 1 grey slices that follow each other, the lowest first, or 1: the slice is
                repeated; a file is a TIFF with as many images, or a slice alone, of which color
                becomes grey.
            probability: Whether to return the probabilities too.

        Returns:
            A Segmentation with the size of the slice.

        Raises:
            DataError: The file or the array is not such a slice.
            StorageError: The file cannot be read.

        Example:
            >>> predictor = inference.load_bundle("demo@production")
            >>> predictor.predict("slice.png").mask.sum()
        """
        slices = [read_slice(image, self.manifest.stack_size)]
        return self.predict_batch(slices, probability=probability)[0]

    def predict_batch(
        self, slices: Sequence[np.ndarray], *, probability: bool = False
    ) -> list[Segmentation]:
        """Predict the masks of slices.

        Each is processed by itself: steps of manifest.post_processing with the scope "patient" need
        all slices of a volume, as predict_volume has them.

        Args:
            slices: uint8 or int32, [H, W, C] with C = 1 (grey) or 3 (RGB), or with n neighbours
                C = 2n + 1 or 1 as in `predict`; sizes may differ. Slices of one shape and type are
                passed to the engine together.
            probability: Whether to return probabilities too.

        Returns:
            One Segmentation per slice, in their order, with the size of the slice.

        Raises:
            RuntimeError: The engine cannot process a slice.

        Example:
            >>> [segmentation.mask.sum() for segmentation in predictor.predict_batch(images)]
        """
        segmentations: dict[int, Segmentation] = {}
        for indices in _group_by_shape(slices):
            # A stack of a caller may be a transposed volume.
            batch = np.ascontiguousarray(np.stack([slices[index] for index in indices]))
            probabilities, masks = self.engine.infer(batch)
            for position, index in enumerate(indices):
                segmentations[index] = Segmentation(
                    process_slice(masks[position], self.manifest.post_processing),
                    probabilities[position] if probability else None,
                )
        return [segmentations[index] for index in range(len(slices))]

    def predict_volume(
        self,
        voxels: np.ndarray,
        *,
        batch_size: int = 8,
        on_progress: ProgressCallback = no_progress,
    ) -> NDArray[np.uint8]:
        """Predict the masks of the slices of a volume, with all steps of manifest.post_processing.

        Args:
            voxels: Grey slices [slices, H, W] in the order and orientation of those that the
                network was trained on (contract.imaging.volume: the standard order, for slices that
                `segfleet import` wrote), of uint8, uint16, int16 or int32.
            batch_size: How many slices are given to the engine together.
            on_progress: Called after each batch with predicted slices and slices in total.

        Returns:
            Class indices [slices, H, W].

        Raises:
            DataError: The array is not such a volume.
            RuntimeError: The engine cannot process a slice.

        Example:
            >>> masks = predictor.predict_volume(np.stack(slices))
        """
        if voxels.ndim != 3:
            raise DataError(
                f"an array of shape {voxels.shape} is not a volume: pass [slices, H, W]."
            )
        masks = np.zeros(voxels.shape, np.uint8)
        stacks = find_volume_neighbours(len(voxels), self.manifest.neighbours)
        for start in range(0, len(voxels), batch_size):
            batch = [
                to_slice(voxels[stack].transpose(1, 2, 0), len(stack))
                for stack in stacks[start : start + batch_size]
            ]
            for index, segmentation in enumerate(self.predict_batch(batch), start=start):
                masks[index] = segmentation.mask
            on_progress(start + len(batch), len(voxels), "")
        return process_volume(masks, self.manifest.post_processing)


def load_predictor(
    source: Storage, threads: int | None = None, gpu: bool | None = None, cache: Path | None = None
) -> Predictor:
    """Load the predictor of a bundle, after checking its files.

    Args:
        source: The storage of the bundle.
        threads: CPUs to use; None: all that this process may use.
        gpu: Whether it may use a GPU; None: if there is one.
        cache: Where a bundle from an object store is copied to (see bundle.fetch).

    Returns:
        A Predictor.

    Raises:
        BundleError: A file of the bundle is missing or damaged; the message names it.

    Example:
        >>> predictor = load_predictor(open_bundle("demo@production", "segfleet-data"))
    """
    folder = bundle.fetch(source, cache)
    manifest = bundle.read_manifest(LocalStorage(folder))
    use_gpu = gpu_count() > 0 if gpu is None else gpu
    return Predictor(manifest, create_engine(folder, threads or cpu_count(), use_gpu))


def read_slice(image: np.ndarray | str | Path, stack_size: int) -> np.ndarray:
    """A slice [H, W, C] from an array or from an image file; DataError if it is not one.

    stack_size: if it is not 1, the slice is a stack of so many grey slices, or one of them.
    """
    if isinstance(image, str | Path):
        path = Path(image).absolute()
        data = LocalStorage(path.parent).read(path.name)
        return decode_stack(data, str(path), stack_size)
    return to_slice(image) if stack_size == 1 else to_slice(image, stack_size)


def warn_if_not_applied(manifest: Manifest, source: str) -> None:
    """Log a warning if a bundle has steps that need volumes.

    source: what the slices are, as the warning calls them: "image files".
    """
    if manifest.post_processing.has_steps("patient"):
        log.warning(
            "%s keeps the largest components or fills holes in the volume of a patient "
            '(predict.largest_component, predict.fill_holes = "patient"): this is not applied to '
            "%s, only by evaluate and to volumes; if masks of single slices are needed, write a "
            'bundle with "slice" by `segfleet export`',
            manifest.name,
            source,
        )


def _group_by_shape(slices: Sequence[np.ndarray]) -> list[list[int]]:
    """The indices of slices of the same shape and type, group by group."""
    groups: dict[tuple[tuple[int, ...], str], list[int]] = {}
    for index, image in enumerate(slices):
        groups.setdefault((image.shape, str(image.dtype)), []).append(index)
    return list(groups.values())
