"""From raw slices to masks through a bundle alone: no Keras, no code of the trainer."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from contract import bundle
from contract.bundle import Manifest
from contract.storage import LocalStorage, Storage
from inference.engines import Engine, create_engine, has_gpu


@dataclass(frozen=True)
class SliceSegmentation:
    """What a network found in one slice."""

    mask: np.ndarray
    """uint8 [H, W]: 1 where the probability is above the bundle's threshold, else 0."""
    probability: np.ndarray | None
    """float32 [H, W] in 0..1, where it was asked for."""


@final
class Predictor:
    """A bundle, ready to segment; made by open_segmenter."""

    def __init__(self, manifest: Manifest, engine: Engine) -> None:
        self.manifest = manifest
        self.engine = engine

    def predict(
        self, slices: Sequence[np.ndarray], probability: bool = False
    ) -> list[SliceSegmentation]:
        """The masks of slices, in their order; each has its slice's height and width.

        slices: uint8 or int16, [H, W, C] with C = 1 (grey) or 3 (RGB); sizes may differ.
        Slices of one shape and type go to the engine together.
        """
        found: list[SliceSegmentation | None] = [None] * len(slices)
        for places in _group_by_shape(slices):
            batch = np.stack([slices[place] for place in places])
            probabilities, masks = self.engine.infer(batch)
            for index, place in enumerate(places):
                kept = probabilities[index] if probability else None
                found[place] = SliceSegmentation(masks[index], kept)
        return [segmentation for segmentation in found if segmentation is not None]


def load_predictor(
    source: Storage, threads: int | None = None, gpu: bool | None = None, cache: Path | None = None
) -> Predictor:
    """The segmenter of a bundle, whose files are checked first.

    threads: CPUs to use; absent: all this process may use. gpu: whether it may use a GPU;
    absent: if there is one. cache: where a bundle of an object store is copied to (see
    bundle.fetch). Raises BundleError, naming the bad file.
    """
    folder = bundle.fetch(source, cache)
    manifest = bundle.read_manifest(LocalStorage(folder))
    engine = create_engine(folder, threads or cpu_count(), has_gpu() if gpu is None else gpu)
    return Predictor(manifest, engine)


def cpu_count() -> int:
    """How many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _group_by_shape(slices: Sequence[np.ndarray]) -> list[list[int]]:
    """The places of slices of the same shape and type, group by group."""
    groups: dict[tuple[tuple[int, ...], str], list[int]] = {}
    for place, image in enumerate(slices):
        groups.setdefault((image.shape, str(image.dtype)), []).append(place)
    return list(groups.values())
