"""Masks of files: one slice, a folder or a prefix of an object store, through a bundle alone.

What is written below OUTPUT, for a slice ct/001.jpg below INPUT:

    prediction.json        whose masks these are; written first
    ct/001.png             the mask, 0 and 255
    overlays/ct/001.png    the slice with its mask tinted over it, if asked for
    dice.csv               where the true masks are given (inference.batch.scoring), and
    dice_by_patient.csv    where a file's name tells its patient

A mask that is there already is not made again, so a prediction that was cut off goes on.
"""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np

from contract import bundle
from contract.errors import DataError, UserError
from contract.imaging.encode import decode_bytes, encode_mask, encode_overlay
from contract.storage import Storage, open_storage
from inference.engines import last_line
from inference.predictor import Predictor, SliceSegmentation

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
RECORD = "prediction.json"
OVERLAYS = "overlays"
_READERS = 4

Advance = Callable[[int], None]
Failures = dict[str, str]
"""The slices that could not be segmented, by key, and why."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictionJob:
    """Where slices come from and where their masks go; the same on every machine."""

    source: Storage
    output: Storage
    overlays: bool
    """Write overlays as well."""

    def read(self, key: str) -> np.ndarray:
        """The slice of a key; DataError naming the file where it is none."""
        data = self.source.read(key)
        try:
            return decode_bytes(data)
        except DataError as error:
            raise DataError(f"{self.source.url}/{key}: {error}") from error

    def write(self, key: str, image: np.ndarray, mask: np.ndarray) -> None:
        """Put what is wanted of a slice; the mask last, as it says that the slice is done."""
        name = stem_of(key)
        if self.overlays:
            self.output.write(f"{OVERLAYS}/{name}.png", encode_overlay(image, mask))
        self.output.write(f"{name}.png", encode_mask(mask))

    def outputs(self, key: str) -> set[str]:
        """The keys of what write puts for a slice."""
        name = stem_of(key)
        return {f"{name}.png"} | ({f"{OVERLAYS}/{name}.png"} if self.overlays else set())


def stem_of(key: str) -> str:
    """The key of a slice or mask without its suffix: "ct/001" of "ct/001.jpg"."""
    return str(PurePosixPath(key).with_suffix(""))


def create_job(source: str, output: str, overlays: bool) -> tuple[PredictionJob, list[str]]:
    """The task that a user's INPUT and OUTPUT name, and the keys of its slices.

    Raises DataError where there is no slice, two slices would have one mask, OUTPUT is named like
    an image, or the masks would lie among the slices of a folder or take the place of one.
    """
    if _is_image(output):
        raise DataError(
            f"OUTPUT {output} is named like an image: name a folder, such as masks, in which each "
            "mask keeps the name of its slice."
        )
    store, keys = find_slices(source)
    task = PredictionJob(store, open_storage(output), overlays)
    _check_apart(task, keys, alone=_is_image(source))
    owners: dict[str, str] = {}
    for key in keys:
        for name in task.outputs(key):
            if owners.setdefault(name, key) != key:
                raise DataError(
                    f"{owners[name]} and {key} of {store.url} would both become {name}: "
                    "rename one of them."
                )
    return task, keys


def find_slices(source: str) -> tuple[Storage, list[str]]:
    """The store of an image, folder or prefix, and the keys of the images in it."""
    if _is_image(source):
        parent, _, name = source.rpartition("/")
        return open_storage(parent or str(Path.cwd())), [name]
    store = open_storage(source)
    keys = [entry.key for entry in store.list_objects() if entry.key.lower().endswith(SUFFIXES)]
    if not keys:
        raise DataError(f"there is no image ({', '.join(SUFFIXES)}) in {store.url}.")
    return store, keys


def _is_image(name: str) -> bool:
    """Whether a user's INPUT or OUTPUT names one image, and not a folder or prefix."""
    return name.lower().endswith(SUFFIXES) and not Path(name).is_dir()


def _check_apart(task: PredictionJob, keys: Sequence[str], alone: bool) -> None:
    """Refuse masks that would be slices of INPUT the next time, or take the place of one.

    alone: INPUT is one image, beside which its mask may lie.
    """
    source, output = task.source.url, task.output.url
    if not alone and f"{output}/".startswith(f"{source}/"):
        raise DataError(f"OUTPUT {output} lies in INPUT: name a folder outside of it.")
    slices = {f"{source}/{key}" for key in keys}
    written = {f"{output}/{name}" for key in keys for name in task.outputs(key)}
    if lost := sorted(slices & written):
        raise DataError(f"{lost[0]} would be overwritten with a mask: name another OUTPUT.")


def resume_keys(task: PredictionJob, keys: Sequence[str], source: Storage) -> list[str]:
    """The keys that are still to be segmented; records at the output whose masks it holds.

    source: the bundle. Raises DataError where the output holds masks of another one.
    """
    manifest, digest = bundle.identify(source)
    present = {entry.key for entry in task.output.list_objects()}
    if RECORD in present:
        _check_record(task, digest)
    elif clash := sorted(name for key in keys for name in task.outputs(key) if name in present):
        raise DataError(
            f"{task.output.url} holds {clash[0]}, and nothing tells which bundle it is of: "
            "choose another OUTPUT."
        )
    record = {"bundle": manifest.name, "digest": digest, "fingerprint": manifest.fingerprint}
    task.output.write(RECORD, json.dumps(record, indent=2).encode())
    return [key for key in keys if not task.outputs(key) <= present]


def predict_files(
    task: PredictionJob, segmenter: Predictor, keys: Sequence[str], batch: int, advance: Advance
) -> Failures:
    """Segment slices one after the other, reading ahead and writing behind; gives the failures.

    batch: slices given to the segmenter together. advance: told how many more are done.
    """
    failures: Failures = {}
    writes: deque[Future[None]] = deque()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="slices") as pool:
        reads = _read_ahead(keys, lambda key: pool.submit(task.read, key), 2 * batch)
        while group := list(islice(reads, batch)):
            slices = dict(_read_slices(group, failures))
            for key, found in _predict_batch(segmenter, slices, failures):
                writes.append(pool.submit(task.write, key, slices[key], found.mask))
            while len(writes) > batch:
                writes.popleft().result()
            advance(len(group))
        for write in writes:
            write.result()
    return failures


def _read_ahead(
    keys: Iterable[str], submit: Callable[[str], Future[np.ndarray]], most: int
) -> Iterator[tuple[str, Future[np.ndarray]]]:
    """Every key with its read under way, at most so many before they are asked for."""
    rest = iter(keys)
    waiting = deque((key, submit(key)) for key in islice(rest, most))
    while waiting:
        yield waiting.popleft()
        waiting.extend((key, submit(key)) for key in islice(rest, 1))


def _read_slices(
    reads: Iterable[tuple[str, Future[np.ndarray]]], failures: Failures
) -> Iterator[tuple[str, np.ndarray]]:
    """The slices that could be read; the others join the failures."""
    for key, read in reads:
        try:
            yield key, read.result()
        except UserError as error:
            failures[key] = str(error)


def _predict_batch(
    segmenter: Predictor, slices: dict[str, np.ndarray], failures: Failures
) -> Iterator[tuple[str, SliceSegmentation]]:
    """The segmentation of each slice; one that the engine refuses leaves the others be."""
    try:
        yield from zip(slices, segmenter.predict(list(slices.values())), strict=True)
    except (RuntimeError, MemoryError) as error:
        if len(slices) == 1:
            (key,) = slices
            reason = last_line(error)
            failures[key] = f"{key}: {segmenter.engine.name} cannot segment it ({reason})."
            return
        for key, image in slices.items():
            yield from _predict_batch(segmenter, {key: image}, failures)


def _check_record(task: PredictionJob, digest: str) -> None:
    try:
        known = json.loads(task.output.read(RECORD))
        other = known["digest"] != digest
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{task.output.url}/{RECORD} is damaged: choose another OUTPUT.") from error
    if other:
        raise DataError(
            f"{task.output.url} holds masks of another bundle ({known.get('bundle')}): "
            "choose another OUTPUT, or delete them first."
        )
