"""The built-in CT phantom: slices of invented patients, for a first try without data.

A phantom is no data set: it shows that the machinery works, not how well a network does on people.
Pictures show the soft-tissue window (level 40 HU, width 400 HU) as 0 to 255.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from contract.config import Phantom
from contract.storage import Storage
from trainer.data.phantom.anatomy import (
    AIR,
    HEIGHT,
    VIEW,
    Field,
    Layer,
    Patient,
    SamplePoints,
    Shape,
    create_anatomy,
)

# Finds the patient in PHANTOM_0003-0007.
PATTERN = r"^PHANTOM_\d+"
# Raised when the pictures below change, so that older phantoms are not mistaken for new ones.
FORMAT = 1

_WINDOW_LOW, _WINDOW_WIDTH = -160.0, 400.0
# Centimetres: how far the warps move things, how much the lobules dent the organ, and the blur.
_WARP, _DENT, _BLUR = 0.28, 0.14, 0.17
# A shape's box is widened by this, more than a warp and a dent together ever reach.
_MARGIN = _WARP * math.sqrt(2.0 * 4) + _DENT * math.sqrt(2.0 * 16)
_WRITERS, _WAITING = 8, 64


@dataclass(frozen=True)
class PhantomSlice:
    """One slice of an invented patient: which split, number and height index it has."""

    split: str
    patient: int
    index: int

    @property
    def name(self) -> str:
        return f"PHANTOM_{self.patient:04d}-{self.index:04d}"


def list_slices(phantom: Phantom) -> Iterator[PhantomSlice]:
    """Every slice of a phantom.

    Each split has its own thousand of patient numbers, so that a larger training split leaves the
    patients of the others as they are.
    """
    counts = (phantom.train_patients, phantom.valid_patients, phantom.test_patients)
    for place, (split, count) in enumerate(zip(("train", "valid", "test"), counts, strict=True)):
        for patient, index in product(range(count), range(phantom.slices)):
            yield PhantomSlice(split, 1000 * place + patient + 1, index)


def write_phantom(
    phantom: Phantom, seed: int, storage: Storage, watch: Callable[[int, int], object]
) -> None:
    """Draw a phantom as split/images/NAME.png and split/masks/NAME.png (0 and 255).

    watch is told (slices drawn, slices in all) after each slice. The same settings and seed give
    the same pixels.
    """
    patients: dict[int, Patient] = {}
    wanted = list(list_slices(phantom))
    for each in wanted:
        if each.patient not in patients:
            patients[each.patient] = create_patient(seed, each.patient)

    def keep(each: PhantomSlice, image: bytes, mask: bytes) -> None:
        storage.write(f"{each.split}/images/{each.name}.png", image)
        storage.write(f"{each.split}/masks/{each.name}.png", mask)

    # Written by several threads, as a store may be far away, and drawn by this one: of several
    # that draw Python lets one work at a time, and they took twice as long.
    writing: deque[Future[None]] = deque()
    with ThreadPoolExecutor(_WRITERS) as pool:
        for done, each in enumerate(wanted, start=1):
            image, mask = render_slice(patients[each.patient], each, phantom, seed)
            writing.append(pool.submit(keep, each, _png(image), _png(mask * np.uint8(255))))
            if len(writing) > _WAITING:
                writing.popleft().result()
            watch(done, len(wanted))
        for written in writing:
            written.result()


def create_patient(seed: int, patient: int) -> Patient:
    """The anatomy of a numbered patient."""
    return create_anatomy(np.random.default_rng((seed, patient, 0)))


def render_slice(
    anatomy: Patient, which: PhantomSlice, phantom: Phantom, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image [size, size] of 0 to 255 and mask [size, size] of 0 and 1 of one slice."""
    canvas = Canvas(anatomy, (which.index + 0.5) / phantom.slices * HEIGHT, phantom.size)
    mask = canvas.paint_patient()
    # 0 drew the anatomy.
    noise = np.random.default_rng((seed, which.patient, which.index + 1))
    return _windowed(_scanned(canvas.hu, canvas.pixel, anatomy.noise, noise)), mask


class Canvas:
    """A slice being painted.

    hu: float32 [size, size]; pixel: its side in cm; at: the points of the anatomy under the
    pixels, which the warps have moved.
    """

    def __init__(self, anatomy: Patient, z: float, size: int) -> None:
        self.anatomy, self.pixel = anatomy, VIEW / size
        straight = _grid(size, z)
        across, along = (_WARP * warp.at(straight) for warp in anatomy.warps)
        self.at = SamplePoints(straight.x + across, straight.y + along, z)
        self.hu = np.full((size, size), AIR, np.float32)

    def paint_patient(self) -> NDArray[np.uint8]:
        """Paint everything; the mask of the organ, 0 and 1."""
        anatomy = self.anatomy
        grain, lobules = anatomy.grain.at(self.at), anatomy.lobules.at(self.at)
        cavity = anatomy.cavity.depth(self.at)
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
        """Cover what lies inside a layer's shape; where that is, as 0 and 1."""
        mask = np.zeros(self.hu.shape, np.uint8)
        window = self._window(layer.shape)
        if window is None:
            return mask
        depth = layer.shape.depth(SamplePoints(self.at.x[window], self.at.y[window], self.at.z))
        if within is not None:
            depth = np.minimum(depth, within[window])
        if dents is not None:
            depth = depth + dents[window]
        cover = np.clip(depth / self.pixel + 0.5, 0.0, 1.0)
        self.hu[window] += cover * (layer.hu + layer.grain * grain[window] - self.hu[window])
        mask[window] = depth > 0.0
        return mask

    def _window(self, shape: Shape) -> tuple[slice, slice] | None:
        """Rows and columns that can show a shape; None where the slice does not cut it."""
        box = shape.box(self.at.z)
        if box is None:
            return None
        steps = (-_MARGIN, _MARGIN, -_MARGIN, _MARGIN)
        left, right, front, back = (
            max(0, round((edge + step + VIEW / 2) / self.pixel))
            for edge, step in zip(box, steps, strict=True)
        )
        return slice(front, back + 1), slice(left, right + 1)


def _grid(size: int, z: float) -> SamplePoints:
    """The middles of the pixels in cm."""
    axis = ((np.arange(size) + 0.5) * (VIEW / size) - VIEW / 2).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return SamplePoints(x, y, z)


def _scanned(hu: Field, pixel: float, deviation: float, draw: Generator) -> Field:
    """Blurred as by a scanner, with noise that is alike in neighbouring pixels as in real CT."""
    blurred = cv2.GaussianBlur(hu, (0, 0), max(0.35, _BLUR / pixel))
    noise = cv2.GaussianBlur(draw.standard_normal(hu.shape, np.float32), (0, 0), 0.7)
    return blurred + noise * (deviation / float(noise.std()))


def _windowed(hu: Field) -> NDArray[np.uint8]:
    return np.clip((hu - _WINDOW_LOW) * (255.0 / _WINDOW_WIDTH), 0, 255).round().astype(np.uint8)


def _png(picture: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()
