"""A bundle: everything needed to turn slices into masks, in one folder or prefix.

    saved_model/    maps raw slices to probabilities and masks
    weights.npz     the network's weights alone; an ensemble of several networks has none
    config.toml     the settings it was trained with
    metrics.json    the metrics of its checkpoint
    manifest.json   what it is and the SHA-256 of every other file; written last

Signatures of the SavedModel: "serving_default" takes {"slices": uint8 [B, H, W, C]}, "int32" the
same in int32 (slices of 16 bits); C is 1 or 3, H and W are arbitrary. Both return {"probability":
float32 [B, H, W, K] in 0..1, "mask": uint8 [B, H, W]}. K is the number of classes; a mask has the
value 0 for the background, and 1 for the first of the manifest's classes. It is not complete before
the steps of post_processing in the manifest, which no graph contains (contract.imaging.components).

If `neighbours` of the manifest is n and not 0, C is 2n + 1: grey slices that follow each other, the
lowest first, the one whose mask is returned in the center (contract.imaging.slice_neighbours); or
C is 1, and the slice is repeated. Color must then be converted to grey before.

A bundle without its manifest is incomplete and is rejected, and so is one with a missing or changed
file. Files that the manifest does not list are allowed and never copied.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from contract.errors import BundleError, NotFoundError, StorageError
from contract.imaging.intensity_scaling import IntensityScaling
from contract.imaging.post_processing import PostProcessing
from contract.imaging.segmentation_class import SegmentationClass
from contract.storage import TEMP_PREFIX, LocalStorage, Storage, translate_errors, validate_key

MANIFEST = "manifest.json"
METRICS = "metrics.json"
SCHEMA_VERSION = 2

_THREADS = 8
# The files of a bundle before its manifest, which the folder of a run or sweep does not contain.
_BUNDLE_FILES = ("saved_model/", "weights.npz", METRICS)
_LOCATION_HINT = (
    "name the folder that a training wrote (<storage.root>/runs/<run.name>/bundle) or a registered "
    "bundle (`segfleet models list`)"
)


class ParentBundle(BaseModel):
    """A bundle from whose weights a training started (train.start_from)."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    name: str
    """Name of its run."""
    digest: str
    """SHA-256 of its manifest."""
    fingerprint: str
    """Config.fingerprint() of its settings."""
    dataset: str
    """Fingerprint of the slices it was trained on."""
    patients: dict[str, tuple[str, ...]]
    """The patients that it was trained on, as {"train": [...], "valid": [...]}."""


class TriedSetting(BaseModel):
    """A setting of the prediction that was tried on the validation patients."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    setting: str
    """Its name, such as "predict.zooms"."""
    value: str
    """Its value, as in a TOML file."""
    dice: float
    """Mean Dice of the validation patients with it, and with what was chosen before it; of an
    ensemble, those of its members, each predicted by its own member."""
    chosen: bool
    """Whether it was chosen; always for the first one, which the choice started from."""


class BundleMetadata(BaseModel):
    """The metadata of a bundle in its manifest."""

    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="strings"
    )

    name: str
    """Name of its run, or of the ensemble."""
    created: str
    """When, ISO 8601 in UTC."""
    commit: str | None
    """Commit of segfleet; null if it ran outside a checkout."""
    machine: str
    """Processor, cores and GPUs."""
    fingerprint: str
    """Config.fingerprint() of the settings."""
    dataset: str
    """Fingerprint of the slices it was trained on."""
    patients: dict[str, tuple[str, ...]]
    """The patients that it was trained on, as {"train": [...], "valid": [...]}."""
    image_size: tuple[int, int]
    """Height and width of the network's input, in pixels."""
    image_channels: int
    """1: grey; 3: RGB. The SavedModel accepts both, unless it has neighbours."""
    neighbours: int
    """How many slices on each side of a slice are further channels of its input (2.5D)."""
    classes: tuple[SegmentationClass, ...]
    """The classes of its masks; index 1 is the first."""
    intensity_scaling: IntensityScaling
    """How raw intensities become the input of the network; part of the SavedModel."""
    class_tolerance: int | None
    """data.class_tolerance, for masks to compare with."""
    other_values_are_background: bool
    """data.other_values_are_background, for masks to compare with."""
    threshold: float
    """With one class, a pixel is foreground where its probability is greater than this."""
    class_thresholds: dict[str, float] = {}
    """predict.class_thresholds, of several classes."""
    zooms: tuple[float, ...] = (1.0,)
    """predict.zooms; of an ensemble, whose members have their own, always 1.0."""
    shifts: tuple[float, ...] = ()
    """predict.shifts; of an ensemble, empty."""
    flips: tuple[str, ...] = ()
    """predict.flips; of an ensemble, empty."""
    post_processing: PostProcessing = PostProcessing()
    """What is done to its masks after the graph (contract.imaging.components)."""
    tried_settings: tuple[TriedSetting, ...] = ()
    """How its settings [predict] were chosen on the validation patients, in this order; empty: they
    are those of its config.toml. Of an ensemble, those of its members if they have the same."""
    metrics: dict[str, float]
    """The metrics of its checkpoint, by name; of an ensemble, the means of its members'."""
    members: tuple[str, ...] = ()
    """Of an ensemble, the names and digests of the bundles in it; else empty. Its dataset,
    image_size, image_channels and intensity_scaling are those of the first, and its fingerprint is
    derived from theirs."""
    parents: tuple[ParentBundle, ...] = ()
    """The bundle that its training started from, then the one that this one started from, and so
    on; of an ensemble, those of all members."""

    def seen_patients(self, splits: Iterable[str]) -> set[str]:
        """The patients in these splits of its own training, and of those of its parents."""
        trainings = [self.patients, *(parent.patients for parent in self.parents)]
        return {
            patient
            for split in splits
            for patients in trainings
            for patient in patients.get(split, ())
        }

    @property
    def stack_size(self) -> int:
        """The slices of its input: the slice and its neighbours."""
        return 2 * self.neighbours + 1


class Manifest(BundleMetadata):
    """The content of manifest.json."""

    schema_version: int
    """Version of this file's format; a reader rejects one that it does not know."""
    files: dict[str, str]
    """Relative path (with /) of every file but this one, and its SHA-256 in hex."""

    @field_validator("files")
    @classmethod
    def _check_paths(cls, files: dict[str, str]) -> dict[str, str]:
        for path in files:
            try:
                validate_key(path)
            except StorageError as error:
                raise ValueError(str(error)) from error
        return files


def check_no_bundle(destination: Storage) -> None:
    """BundleError if there is a bundle at the destination of a new one."""
    if destination.exists(MANIFEST):
        raise BundleError(
            f"{destination.url} has a bundle already: choose another folder, or delete it."
        )


def write_bundle(folder: Path, destination: Storage, metadata: BundleMetadata) -> Manifest:
    """Write a bundle from a local folder: add metrics.json and the manifest; upload it last.

    folder: contains saved_model, config.toml and, unless it is an ensemble, weights.npz; it may be
    the destination itself. An existing bundle at the destination is invalid as soon as its files
    are being replaced.
    """
    local = LocalStorage(folder)
    for store in (local, destination):
        if store.exists(MANIFEST):
            store.delete(MANIFEST)
    local.write(METRICS, json.dumps(metadata.model_dump(mode="json")["metrics"], indent=2).encode())
    manifest = Manifest(
        **metadata.model_dump(), schema_version=SCHEMA_VERSION, files=_digests(local)
    )
    local.write(MANIFEST, _to_json(manifest))
    destination.upload_folder(folder, last=MANIFEST)
    return manifest


def read_manifest(source: Storage) -> Manifest:
    """The manifest of a bundle; BundleError if it is missing, damaged or of another version."""
    return _parse(_manifest_bytes(source), f"{source.url}/{MANIFEST}")


def identify(source: Storage) -> tuple[Manifest, str]:
    """A bundle's manifest and the manifest's SHA-256, which identifies the complete content.

    Raises BundleError as read_manifest does.
    """
    data = _manifest_bytes(source)
    return _parse(data, f"{source.url}/{MANIFEST}"), hashlib.sha256(data).hexdigest()


def member_names(members: Sequence[Storage]) -> tuple[str, ...]:
    """The names of bundles in the manifest of their ensemble.

    Each has the start of the SHA-256 of its manifest. Raises BundleError as read_manifest does.
    """
    identities = [identify(member) for member in members]
    return tuple(f"{manifest.name} {digest[:16]}" for manifest, digest in identities)


def verify(folder: Path) -> Manifest:
    """Check every file of a local bundle against its manifest; BundleError names the bad one."""
    manifest = read_manifest(LocalStorage(folder))
    _check_files(folder, manifest, str(folder))
    return manifest


def fetch(source: Storage, cache: Path | None = None) -> Path:
    """A verified local folder of a bundle: its own folder if it is local, else a copy.

    cache: where copies are stored, one per content, so that a second call copies nothing; None:
    ~/.cache/segfleet/bundles. Processes may share it. Raises BundleError naming the damaged file.
    """
    if isinstance(source, LocalStorage):
        verify(source.path)
        return source.path
    manifest, digest = identify(source)
    root = cache or Path("~/.cache/segfleet/bundles").expanduser()
    copy = root / f"{manifest.name}-{digest[:16]}"
    if not _is_valid(copy):
        _copy(source, manifest, copy)
    return copy


def copy_bundle(source: Storage, destination: Storage) -> None:
    """Copy a bundle from store to store, its manifest last; a complete copy is kept.

    Between two prefixes of S3, nothing passes through this machine. The files are not verified:
    fetch verifies the source.
    """
    manifest, digest = identify(source)
    if destination.exists(MANIFEST) and identify(destination)[1] == digest:
        return
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="bundle") as pool:
        list(pool.map(lambda path: destination.copy_object(path, source, path), manifest.files))
    destination.copy_object(MANIFEST, source, MANIFEST)


def _copy(source: Storage, manifest: Manifest, target: Path) -> None:
    """Copy the listed files, check them, and move the folder into place atomically."""
    missing = set(manifest.files) - {entry.key for entry in source.list_objects()}
    if missing:
        raise BundleError(_missing_file_error(source.url, min(missing)))
    temporary = target.with_name(f"{TEMP_PREFIX}{uuid4().hex}")
    try:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="bundle") as pool:
            list(
                pool.map(lambda path: source.download_file(path, temporary / path), manifest.files)
            )
        _check_files(temporary, manifest, source.url)
        LocalStorage(temporary).write(MANIFEST, _to_json(manifest))
        with translate_errors("write", target):
            _move_into_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_into_place(temporary: Path, target: Path) -> None:
    """Rename a complete copy; another process may have created the same copy meanwhile."""
    if not _is_valid(target):
        shutil.rmtree(target, ignore_errors=True)
    try:
        temporary.rename(target)
    except OSError:
        if not _is_valid(target):
            raise


def _is_valid(folder: Path) -> bool:
    try:
        verify(folder)
    except BundleError:
        return False
    return True


def _manifest_bytes(source: Storage) -> bytes:
    """The manifest's content, or a BundleError that says what the folder contains instead."""
    if isinstance(source, LocalStorage) and source.path.is_file():
        raise BundleError(f"{source.url} is a file, not a bundle: {_LOCATION_HINT}.")
    try:
        return source.read(MANIFEST)
    except NotFoundError as error:
        raise BundleError(_no_manifest(source)) from error


def _no_manifest(source: Storage) -> str:
    if source.exists(f"bundle/{MANIFEST}"):
        return f"{source.url} is a run, not a bundle: give {source.url}/bundle."
    keys = [entry.key for entry in source.list_objects()]
    if any(key.startswith(_BUNDLE_FILES) for key in keys):
        return (
            f"the bundle {source.url} is incomplete: it has no {MANIFEST}; "
            "run the training again to complete it."
        )
    if keys:
        return (
            f"{source.url} is not a bundle (a trained network with a {MANIFEST}): {_LOCATION_HINT}."
        )
    return f"there is no bundle at {source.url}: {_LOCATION_HINT}."


def _to_json(manifest: Manifest) -> bytes:
    return manifest.model_dump_json(indent=2).encode()


def _parse(data: bytes, origin: str) -> Manifest:
    """The manifest in these bytes; the schema version is checked first."""
    try:
        tree = json.loads(data)
    except ValueError as error:
        raise BundleError(_damaged(origin, str(error))) from error
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    if not isinstance(version, int):
        raise BundleError(_damaged(origin, "it has no schema_version"))
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{origin} has schema version {version}, and this segfleet reads {SCHEMA_VERSION}: "
            "use the segfleet that wrote the bundle, or train it again."
        )
    try:
        return Manifest.model_validate(tree)
    except ValidationError as error:
        details = error.errors()[0]
        reason = f"{'.'.join(map(str, details['loc']))}: {details['msg']}"
        raise BundleError(_damaged(origin, reason)) from error


def _damaged(origin: str, reason: str) -> str:
    return f"{origin} is damaged ({reason}): copy the bundle again or train it again."


def _missing_file_error(bundle_name: str, path: str) -> str:
    return f"the bundle {bundle_name} lacks {path}: copy it again or train it again."


def _check_files(folder: Path, manifest: Manifest, bundle_name: str) -> None:
    """Compare a folder's files with a manifest; bundle_name: of the bundle in an error."""
    for path, expected in manifest.files.items():
        if not (folder / path).is_file():
            raise BundleError(_missing_file_error(bundle_name, path))
        if _digest(folder / path) != expected:
            raise BundleError(
                f"{path} of the bundle {bundle_name} has changed since the bundle was written: "
                "copy it again or train it again."
            )


def _digests(folder: LocalStorage) -> dict[str, str]:
    return {entry.key: _digest(folder.path / entry.key) for entry in folder.list_objects()}


def _digest(file: Path) -> str:
    with translate_errors("read", file), file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
