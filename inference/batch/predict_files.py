"""Masks of files: one slice, a folder or a prefix of an object store.

Output files below OUTPUT, for a slice ct/001.jpg below INPUT:

    prediction.json        which bundle predicted the masks; written first
    ct/001.png             the mask (contract.imaging.encode.encode_mask)
    overlays/ct/001.png    the slice with its mask drawn over it, if requested
    probabilities/ct/001.png|npz  the probabilities, if requested (encode_probability)
    dice.csv               if the ground truth is given (inference.batch.scoring), and
    dice_by_patient.csv    if the patient can be found in the name of a file

A mask that exists is not predicted again, so an interrupted prediction can be resumed.
"""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np

from contract import bundle
from contract.errors import DataError, UserError, last_line
from contract.imaging.decode import decode_image, decode_stack
from contract.imaging.encode import (
    decode_encoded_mask,
    encode_mask,
    encode_overlay,
    encode_probability,
    probability_suffix,
)
from contract.imaging.file_names import IMAGE_SUFFIXES, is_hidden, is_image_file, normalized_stem
from contract.imaging.segmentation_class import MaskFormat, SegmentationClass
from contract.imaging.slice_neighbours import center_slice, find_neighbours, stack_slices
from contract.progress import ProgressCallback, no_progress
from contract.storage import LocalStorage, Storage, open_storage
from inference.predictor import Predictor, Segmentation

RECORD = "prediction.json"
OVERLAYS, PROBABILITIES = "overlays", "probabilities"
_READERS = 4

Failures = dict[str, str]
"""The slices that could not be predicted, by key, and why."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutputFiles:
    """Which files are written for each slice.

    Attributes:
        classes: The classes of the bundle.
        window: The raw intensities that overlays show as black and white.
        mask_format: How masks are written.
        overlays: Write the slices with their masks drawn over them.
        probabilities: Write the probabilities.
    """

    classes: tuple[SegmentationClass, ...]
    window: tuple[float, float]
    mask_format: MaskFormat = "indices"
    overlays: bool = False
    probabilities: bool = False


@dataclass(frozen=True)
class PredictionJob:
    """Where slices are read from and masks are written to; the same on every machine."""

    source: Storage
    output: Storage
    files: OutputFiles
    stack_size: int = 1
    """The slices that the bundle is given for one mask: a slice and its neighbours."""
    stacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The keys of the slices in the stack of each key, the lowest first; without neighbours, or of
    a single file, empty."""

    def select(self, keys: Sequence[str]) -> Self:
        """The job without the stacks of other keys, which need not be sent to another machine."""
        return replace(self, stacks={key: self.stacks[key] for key in keys if key in self.stacks})

    def read(self, key: str, read_slice: Callable[[str], np.ndarray]) -> np.ndarray:
        """The slice of a key, or its stack; DataError naming the file if one is not valid.

        read_slice: self.read_slice, or a function that remembers what it has read.
        """
        if self.stack_size == 1:
            return read_slice(key)
        if key not in self.stacks:
            return decode_stack(self.source.read(key), f"{self.source.url}/{key}", self.stack_size)
        keys = self.stacks[key]
        slices = [read_slice(each) for each in keys]
        return stack_slices(slices, [f"{self.source.url}/{each}" for each in keys])

    def read_slice(self, key: str) -> np.ndarray:
        """The slice in a file; DataError naming the file if it is not valid."""
        return decode_image(self.source.read(key), f"{self.source.url}/{key}")

    def write(self, key: str, image: np.ndarray, segmentation: Segmentation) -> None:
        """Write the output files of a slice; the mask last, because it marks the slice as done."""
        stem, mask, classes = stem_of(key), segmentation.mask, self.files.classes
        if segmentation.probability is not None:
            content = encode_probability(segmentation.probability, classes)
            self.output.write(f"{PROBABILITIES}/{stem}{probability_suffix(classes)}", content)
        if self.files.overlays:
            shown = center_slice(image, self.stack_size)
            overlay = encode_overlay(shown, mask, classes, self.files.window)
            self.output.write(f"{OVERLAYS}/{stem}.png", overlay)
        self.output.write(f"{stem}.png", encode_mask(mask, classes, self.files.mask_format))

    def read_mask(self, key: str) -> np.ndarray:
        """The class indices [H, W] of the mask that was written for a slice."""
        data = self.output.read(f"{stem_of(key)}.png")
        return decode_encoded_mask(data, self.files.classes, self.files.mask_format)

    def output_keys(self, key: str) -> set[str]:
        """The keys of the output files of a slice."""
        stem = stem_of(key)
        keys = {f"{stem}.png"}
        if self.files.overlays:
            keys.add(f"{OVERLAYS}/{stem}.png")
        if self.files.probabilities:
            keys.add(f"{PROBABILITIES}/{stem}{probability_suffix(self.files.classes)}")
        return keys


def stem_of(key: str) -> str:
    """The key of a slice or mask without its suffix: "ct/001" of "ct/001.jpg"."""
    return str(PurePosixPath(key).with_suffix(""))


def create_job(
    source: str, output: str, files: OutputFiles, neighbours: int = 0
) -> tuple[PredictionJob, list[str]]:
    """The job for a user's INPUT and OUTPUT, and the keys of its slices.

    Args:
        source: An image, a folder or a prefix.
        output: A folder or a prefix.
        files: Which files are written.
        neighbours: The slices on each side that the bundle is given with a slice. They are those of
            the folder with the next numbers in their names; an image that is given by itself is a
            stack of its own, or repeated.

    Raises:
        DataError: There is no slice, two slices would have the same mask, OUTPUT is named like an
            image, or masks would be written among the slices of a folder or overwrite one.
    """
    if _is_image(output):
        raise DataError(
            f"OUTPUT {output} is named like an image: name a folder, such as masks, in which each "
            "mask has the name of its slice."
        )
    storage, keys = find_slices(source)
    stacks = {} if _is_image(source) else _find_stacks(keys, neighbours)
    job = PredictionJob(storage, open_storage(output), files, 2 * neighbours + 1, stacks)
    _check_overwrites(job, keys, is_single=_is_image(source))
    owners: dict[str, str] = {}
    for key in keys:
        for output_key in job.output_keys(key):
            if owners.setdefault(output_key, key) != key:
                raise DataError(
                    f"{owners[output_key]} and {key} of {storage.url} would both become "
                    f"{output_key}: rename one of them."
                )
    return job, keys


def _find_stacks(keys: Sequence[str], neighbours: int) -> dict[str, tuple[str, ...]]:
    """The keys of the slices in the stack of each key; empty without neighbours."""
    if not neighbours:
        return {}
    names = [normalized_stem(key) for key in keys]
    table: list[list[int]] = find_neighbours(names, neighbours).tolist()
    return {
        key: tuple(keys[index] for index in stack) for key, stack in zip(keys, table, strict=True)
    }


def find_slices(source: str) -> tuple[Storage, list[str]]:
    """The storage of an image, folder or prefix, and the keys of its images."""
    if _is_image(source):
        parent, _, name = source.rpartition("/")
        return open_storage(parent or str(Path.cwd())), [name]
    storage = open_storage(source)
    images = [info.key for info in storage.list_objects() if is_image_file(info.key)]
    keys = [key for key in images if not is_hidden(key)]
    if hidden := len(images) - len(keys):
        log.info("%d hidden files in %s are ignored", hidden, storage.url)
    if not keys and isinstance(storage, LocalStorage) and not storage.path.is_dir():
        reason = "is not an image" if storage.path.exists() else "does not exist"
        raise DataError(f"{source} {reason}: give an image, a folder or an s3:// prefix of images.")
    if not keys:
        raise DataError(
            f"there is no image ({', '.join(IMAGE_SUFFIXES)}) in {storage.url}: name a folder or "
            "s3:// prefix with images."
        )
    return storage, keys


def _is_image(name: str) -> bool:
    """Whether a user's INPUT or OUTPUT names one image, and not a folder or prefix."""
    return is_image_file(name) and not Path(name).is_dir()


def _check_overwrites(job: PredictionJob, keys: Sequence[str], is_single: bool) -> None:
    """DataError for masks that would be slices of INPUT the next time, or would overwrite one.

    is_single: INPUT is one image; its mask may be written to the same folder.
    """
    source, output = job.source.url, job.output.url
    if not is_single and f"{output}/".startswith(f"{source}/"):
        raise DataError(f"OUTPUT {output} is inside INPUT: name a folder outside of it.")
    slices = {f"{source}/{key}" for key in keys}
    written = {f"{output}/{name}" for key in keys for name in job.output_keys(key)}
    if overwritten := sorted(slices & written):
        raise DataError(f"{overwritten[0]} would be overwritten by a mask: name another OUTPUT.")


def resume_keys(job: PredictionJob, keys: Sequence[str], source: Storage) -> list[str]:
    """The keys that are not predicted yet; records at the output which bundle predicts.

    source: the bundle. Raises DataError if the output contains masks of another bundle.
    """
    expected = {name for key in keys for name in job.output_keys(key)}
    present = record_bundle(job.output, expected, source, job.files.mask_format)
    return [key for key in keys if not job.output_keys(key) <= present]


def record_bundle(
    output: Storage, expected: Set[str], source: Storage, mask_format: str
) -> set[str]:
    """Record at the output which bundle predicts.

    Args:
        output: Where the masks are written to.
        expected: The keys of the masks.
        source: The bundle.
        mask_format: How the masks are written.

    Returns:
        The keys of all files in the output.

    Raises:
        DataError: The output contains masks of another bundle, or in another format.
    """
    manifest, digest = bundle.identify(source)
    present = {info.key for info in output.list_objects()}
    existing = sorted(expected & present)
    if RECORD in present:
        _check_record(output, digest, mask_format)
    elif existing:
        raise DataError(
            f"{output.url} contains {existing[0]}, but no record of the bundle that predicted "
            "it: choose another OUTPUT."
        )
    record = {
        "bundle": manifest.name,
        "digest": digest,
        "fingerprint": manifest.fingerprint,
        "mask_format": mask_format,
        "classes": [each.name for each in manifest.classes],
    }
    output.write(RECORD, json.dumps(record, indent=2).encode())
    return present


def predict_files(
    job: PredictionJob,
    predictor: Predictor,
    keys: Sequence[str],
    batch_size: int,
    on_progress: ProgressCallback = no_progress,
) -> Failures:
    """Predict slices; reads ahead and writes in the background.

    Args:
        job: Where slices are read from and masks are written to.
        predictor: The bundle.
        keys: The slices.
        batch_size: Slices given to the predictor together.
        on_progress: Called after each batch.

    Returns:
        The slices that could not be predicted, and why.
    """
    failures: Failures = {}
    writes: deque[Future[None]] = deque()
    done = 0
    read_slice = job.read_slice
    if job.stacks:
        # A slice is part of the stacks of its neighbours, which are read soon after it.
        read_slice = lru_cache(2 * (batch_size + job.stack_size))(read_slice)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="slices") as pool:
        reads = _read_ahead(
            keys, lambda key: pool.submit(job.read, key, read_slice), 2 * batch_size
        )
        while batch := list(islice(reads, batch_size)):
            slices = dict(_read_slices(batch, failures))
            for key, segmentation in _predict_batch(
                predictor, slices, failures, job.files.probabilities
            ):
                writes.append(pool.submit(job.write, key, slices[key], segmentation))
            while len(writes) > batch_size:
                writes.popleft().result()
            done += len(batch)
            on_progress(done, len(keys), "")
        for write in writes:
            write.result()
    return failures


def _read_ahead(
    keys: Iterable[str], submit: Callable[[str], Future[np.ndarray]], max_pending: int
) -> Iterator[tuple[str, Future[np.ndarray]]]:
    """Every key with its pending read; at most max_pending reads are started ahead."""
    remaining = iter(keys)
    pending = deque((key, submit(key)) for key in islice(remaining, max_pending))
    while pending:
        yield pending.popleft()
        pending.extend((key, submit(key)) for key in islice(remaining, 1))


def _read_slices(
    reads: Iterable[tuple[str, Future[np.ndarray]]], failures: Failures
) -> Iterator[tuple[str, np.ndarray]]:
    """The slices that could be read; the others are added to the failures."""
    for key, read in reads:
        try:
            yield key, read.result()
        except UserError as error:
            failures[key] = str(error)


def _predict_batch(
    predictor: Predictor, slices: dict[str, np.ndarray], failures: Failures, probability: bool
) -> Iterator[tuple[str, Segmentation]]:
    """The segmentation of each slice; one that the engine cannot process does not affect others."""
    try:
        segmentations = predictor.predict_batch(list(slices.values()), probability=probability)
        yield from zip(slices, segmentations, strict=True)
    except (RuntimeError, MemoryError) as error:
        if len(slices) == 1:
            (key,) = slices
            reason = last_line(error)
            failures[key] = f"{key}: {predictor.engine.name} cannot process it ({reason})."
            return
        for key, image in slices.items():
            yield from _predict_batch(predictor, {key: image}, failures, probability)


def _check_record(output: Storage, digest: str, mask_format: str) -> None:
    try:
        record = json.loads(output.read(RECORD))
        is_other = record["digest"] != digest
        present_format = record["mask_format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{output.url}/{RECORD} is damaged: choose another OUTPUT.") from error
    if is_other:
        raise DataError(
            f"{output.url} contains masks of another bundle ({record.get('bundle')}): "
            "choose another OUTPUT, or delete them first."
        )
    if present_format != mask_format:
        raise DataError(
            f"{output.url} contains masks in the format {present_format}, not {mask_format}: use "
            "the same format, or choose another OUTPUT."
        )
