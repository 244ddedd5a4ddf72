"""The built-in CT phantom: slices of synthetic patients, so that every command runs without data.

The phantom shows that the software works; it says nothing about the accuracy on real patients.
Images show the soft-tissue window (level 40 HU, width 400 HU) as 0 to 255.
"""

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from contract.config import Phantom
from contract.imaging.encode import encode_png
from contract.progress import ProgressCallback, no_progress
from contract.storage import Storage
from trainer.data.phantom.anatomy import AIR, Layer, Patient, create_anatomy
from trainer.data.phantom.shapes import HEIGHT, VIEW, Field, SamplePoints, Solid

# Finds the patient in PHANTOM_0003-0007.
PATIENT_REGEX = r"^PHANTOM_\d+"
# Increased when the images change, so that older phantoms are not used.
FORMAT = 1

_WINDOW_LOW, _WINDOW_WIDTH = -160.0, 400.0
# Centimeters: how far the warps move points, how deep the lobules dent the organ, and the blur.
_WARP, _DENT, _BLUR = 0.28, 0.14, 0.17
# A shape's bounding box is enlarged by this, more than the maximum of warp and dent together.
_MARGIN = _WARP * math.sqrt(2.0 * 4) + _DENT * math.sqrt(2.0 * 16)
_WRITERS, _MAX_PENDING = 8, 64


@dataclass(frozen=True)
class PhantomSlice:
    """One slice of a synthetic patient: its split, patient number and slice index."""

    split: str
    patient: int
    index: int

    @property
    def name(self) -> str:
        return f"PHANTOM_{self.patient:04d}-{self.index:04d}"


def list_slices(phantom: Phantom) -> Iterator[PhantomSlice]:
    """Every slice of a phantom.

    Each split has its own range of a thousand patient numbers, so that a larger training split does
    not change the patients of the others.
    """
    counts = (phantom.train_patients, phantom.valid_patients, phantom.test_patients)
    for index_of_split, (split, count) in enumerate(
        zip(("train", "valid", "test"), counts, strict=True)
    ):
        for patient, index in product(range(count), range(phantom.slices)):
            yield PhantomSlice(split, 1000 * index_of_split + patient + 1, index)


def write_phantom(
    phantom: Phantom, seed: int, storage: Storage, on_progress: ProgressCallback = no_progress
) -> None:
    """Draw a phantom as split/images/NAME.png and split/masks/NAME.png (0 and 255).

    on_progress is called after each slice. The same settings and seed give the same pixels.
    """
    patients: dict[int, Patient] = {}
    specs = list(list_slices(phantom))
    for each in specs:
        if each.patient not in patients:
            patients[each.patient] = create_patient(seed, each.patient)

    def save(each: PhantomSlice, image: bytes, mask: bytes) -> None:
        storage.write(f"{each.split}/images/{each.name}.png", image)
        storage.write(f"{each.split}/masks/{each.name}.png", mask)

    # Several threads write, because storage may have a high latency, and this one draws: Python
    # runs only one drawing thread at a time, and several took twice as long.
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(_WRITERS) as pool:
        for done, each in enumerate(specs, start=1):
            image, mask = render_slice(patients[each.patient], each, phantom, seed)
            pending.append(
                pool.submit(save, each, encode_png(image), encode_png(mask * np.uint8(255)))
            )
            if len(pending) > _MAX_PENDING:
                pending.popleft().result()
            on_progress(done, len(specs), "drawn")
        for future in pending:
            future.result()


def create_patient(seed: int, patient_index: int) -> Patient:
    """The anatomy of a patient, by its number."""
    return create_anatomy(np.random.default_rng((seed, patient_index, 0)))


def render_slice(
    anatomy: Patient, spec: PhantomSlice, phantom: Phantom, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image [size, size] of 0 to 255 and mask [size, size] of 0 and 1 of one slice."""
    canvas = Canvas(anatomy, (spec.index + 0.5) / phantom.slices * HEIGHT, phantom.size)
    mask = canvas.paint_patient()
    # Stream 0 is the anatomy.
    rng = np.random.default_rng((seed, spec.patient, spec.index + 1))
    return _apply_intensity_window(
        _simulate_scan(canvas.hu, canvas.pixel, anatomy.noise, rng)
    ), mask


class Canvas:
    """The image of a slice.

    hu: float32 [size, size]; pixel: its size in cm; points: the points of the anatomy at the
    pixels, moved by the warps.
    """

    def __init__(self, anatomy: Patient, z: float, size: int) -> None:
        self.anatomy, self.pixel = anatomy, VIEW / size
        grid = _pixel_centers(size, z)
        across, along = (_WARP * warp.sample(grid) for warp in anatomy.warps)
        self.points = SamplePoints(grid.x + across, grid.y + along, z)
        self.hu = np.full((size, size), AIR, np.float32)

    def paint_patient(self) -> NDArray[np.uint8]:
        """Paint everything; returns the mask of the organ, 0 and 1."""
        anatomy = self.anatomy
        grain, lobules = anatomy.grain.sample(self.points), anatomy.lobules.sample(self.points)
        cavity = anatomy.cavity.depth(self.points)
        for layer in anatomy.wall:
            self._paint(layer, grain)
        for layer in anatomy.viscera:
            self._paint(layer, grain, within=cavity)
        for layer in anatomy.spine:
            self._paint(layer, grain)
        return self._paint(anatomy.organ, lobules, dents=_DENT * lobules)

    def _paint(
        self, layer: Layer, grain: Field, within: Field | None = None, dents: Field | None = None
    ) -> NDArray[np.uint8]:
        """Paint the inside of a layer's shape; returns its mask of 0 and 1."""
        mask = np.zeros(self.hu.shape, np.uint8)
        box = self._bounding_box(layer.shape)
        if box is None:
            return mask
        depth = layer.shape.depth(
            SamplePoints(self.points.x[box], self.points.y[box], self.points.z)
        )
        if within is not None:
            depth = np.minimum(depth, within[box])
        if dents is not None:
            depth = depth + dents[box]
        cover = np.clip(depth / self.pixel + 0.5, 0.0, 1.0)
        self.hu[box] += cover * (layer.hu + layer.grain * grain[box] - self.hu[box])
        mask[box] = depth > 0.0
        return mask

    def _bounding_box(self, shape: Solid) -> tuple[slice, slice] | None:
        """Rows and columns that can show a shape; None if the slice does not intersect it."""
        box = shape.box(self.points.z)
        if box is None:
            return None
        steps = (-_MARGIN, _MARGIN, -_MARGIN, _MARGIN)
        left, right, front, back = (
            max(0, round((edge + step + VIEW / 2) / self.pixel))
            for edge, step in zip(box, steps, strict=True)
        )
        return slice(front, back + 1), slice(left, right + 1)


def _pixel_centers(size: int, z: float) -> SamplePoints:
    """The centers of the pixels in cm."""
    axis = ((np.arange(size) + 0.5) * (VIEW / size) - VIEW / 2).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return SamplePoints(x, y, z)


def _simulate_scan(hu: Field, pixel: float, deviation: float, rng: Generator) -> Field:
    """Blur as of a scanner, and noise that is correlated between neighboring pixels as in CT."""
    blurred = cv2.GaussianBlur(hu, (0, 0), max(0.35, _BLUR / pixel))
    noise = cv2.GaussianBlur(rng.standard_normal(hu.shape, np.float32), (0, 0), 0.7)
    return blurred + noise * (deviation / float(noise.std()))


def _apply_intensity_window(hu: Field) -> NDArray[np.uint8]:
    return np.clip((hu - _WINDOW_LOW) * (255.0 / _WINDOW_WIDTH), 0, 255).round().astype(np.uint8)
