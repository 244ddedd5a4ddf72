"""A bundle: all that is needed to turn slices into masks, in one folder or prefix.

    saved_model/    takes raw slices, gives probabilities and masks; pre- and post-processing inside
    weights.npz     the network's weights alone
    config.toml     the settings it was trained with
    metrics.json    the scores of its checkpoint
    manifest.json   what it is and the SHA-256 of every other file; written last

Signatures of the SavedModel: "serving_default" takes {"slices": uint8 [B, H, W, C]}, "int16" the
same in int16; C is 1 or 3, H and W are any. Both give {"probability": float32 [B, H, W] in 0..1,
"mask": uint8 [B, H, W] of 0 and 1}.

A bundle without its manifest is half written and refused, and so is one with a missing or changed
file. Files the manifest does not list are allowed and never copied: people leave notes.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from contract.errors import BundleError, NotFoundError, StorageError
from contract.storage import TEMP_PREFIX, LocalStorage, Storage, translate_errors, validate_key

MANIFEST = "manifest.json"
METRICS = "metrics.json"
SCHEMA_VERSION = 1

_THREADS = 8
# What is there of a bundle before its manifest, and in no run's or sweep's folder.
_PARTS = ("saved_model/", "weights.npz", METRICS)
_WHERE = (
    "training leaves a bundle in <storage.root>/runs/<run.name>/bundle, and "
    "`python -m inference models` lists the registered ones"
)


class BundleMetadata(BaseModel):
    """What a manifest says of a bundle's making."""

    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="strings"
    )

    name: str
    """Name of the run it comes from."""
    created: str
    """When, ISO 8601 in UTC."""
    commit: str | None
    """Commit of segfleet; absent where it ran outside a checkout."""
    machine: str
    """Processor, cores and GPUs."""
    fingerprint: str
    """Config.fingerprint() of the settings."""
    dataset: str
    """Fingerprint of the slices it was trained on."""
    patients: dict[str, tuple[str, ...]]
    """The patients it has learnt from, as {"train": [...], "valid": [...]}."""
    image_size: int
    """Height and width the network works at, in pixels."""
    image_channels: int
    """1: grey; 3: RGB. The SavedModel takes both all the same."""
    threshold: float
    """A pixel is foreground where its probability is greater than this."""
    metrics: dict[str, float]
    """The scores of its checkpoint, by name."""

    @classmethod
    def now(
        cls,
        *,
        name: str,
        commit: str | None,
        machine: str,
        fingerprint: str,
        dataset: str,
        patients: Mapping[str, Sequence[str]],
        image_size: int,
        image_channels: int,
        threshold: float,
        metrics: Mapping[str, float],
    ) -> Self:
        """The facts of a bundle made at this moment."""
        return cls(
            name=name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=commit,
            machine=machine,
            fingerprint=fingerprint,
            dataset=dataset,
            patients={split: tuple(names) for split, names in patients.items()},
            image_size=image_size,
            image_channels=image_channels,
            threshold=threshold,
            metrics=dict(metrics),
        )


class Manifest(BundleMetadata):
    """The content of manifest.json."""

    schema_version: int
    """Of this file's layout; a reader refuses one it does not know."""
    files: dict[str, str]
    """Relative path (with /) of every file but this one, and its SHA-256 in hex."""

    @field_validator("files")
    @classmethod
    def _stay_inside(cls, files: dict[str, str]) -> dict[str, str]:
        for path in files:
            try:
                validate_key(path)
            except StorageError as error:
                raise ValueError(str(error)) from error
        return files


def write_bundle(folder: Path, destination: Storage, facts: BundleMetadata) -> Manifest:
    """Make a bundle of a local folder: add metrics.json and the manifest, copy all, manifest last.

    folder: holds saved_model, weights.npz and config.toml; it may be the destination itself.
    A bundle that stood at the destination is gone as soon as its files are being replaced.
    """
    local = LocalStorage(folder)
    for store in (local, destination):
        if store.exists(MANIFEST):
            store.delete(MANIFEST)
    local.write(METRICS, json.dumps(facts.model_dump(mode="json")["metrics"], indent=2).encode())
    manifest = Manifest(**facts.model_dump(), schema_version=SCHEMA_VERSION, files=_digests(local))
    local.write(MANIFEST, _bytes(manifest))
    destination.upload_folder(folder, last=MANIFEST)
    return manifest


def read_manifest(source: Storage) -> Manifest:
    """What a bundle says of itself; BundleError where it is missing, damaged or too new."""
    return _parse(_manifest_bytes(source), f"{source.url}/{MANIFEST}")


def identify(source: Storage) -> tuple[Manifest, str]:
    """A bundle's manifest and the manifest's SHA-256, which stands for the whole content.

    Raises BundleError as read_manifest does.
    """
    data = _manifest_bytes(source)
    return _parse(data, f"{source.url}/{MANIFEST}"), hashlib.sha256(data).hexdigest()


def verify(folder: Path) -> Manifest:
    """Check every file of a local bundle against its manifest; BundleError names the bad one."""
    manifest = read_manifest(LocalStorage(folder))
    _check(folder, manifest, str(folder))
    return manifest


def fetch(source: Storage, cache: Path | None = None) -> Path:
    """A verified local folder of a bundle: itself where it is local, else a copy.

    cache: where copies are kept, one for each content, so that a second call copies nothing;
    absent: ~/.cache/segfleet/bundles. Processes may share it. Raises BundleError, naming the
    bad file.
    """
    if isinstance(source, LocalStorage):
        verify(source.path)
        return source.path
    manifest, digest = identify(source)
    shelf = cache or Path("~/.cache/segfleet/bundles").expanduser()
    copy = shelf / f"{manifest.name}-{digest[:16]}"
    if not _is_whole(copy):
        _copy(source, manifest, copy)
    return copy


def _copy(source: Storage, manifest: Manifest, target: Path) -> None:
    """Copy the listed files, check them, and put the folder in place as a whole."""
    missing = set(manifest.files) - {entry.key for entry in source.list_objects()}
    if missing:
        raise BundleError(_lacks(source.url, min(missing)))
    partial = target.with_name(f"{TEMP_PREFIX}{uuid4().hex}")
    try:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="bundle") as pool:
            list(pool.map(lambda path: source.download_file(path, partial / path), manifest.files))
        _check(partial, manifest, source.url)
        LocalStorage(partial).write(MANIFEST, _bytes(manifest))
        with translate_errors("write", target):
            _take_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _take_place(partial: Path, target: Path) -> None:
    """Rename a whole copy; another process may just have put the same in place."""
    if not _is_whole(target):
        shutil.rmtree(target, ignore_errors=True)
    try:
        partial.rename(target)
    except OSError:
        if not _is_whole(target):
            raise


def _is_whole(folder: Path) -> bool:
    try:
        verify(folder)
    except BundleError:
        return False
    return True


def _manifest_bytes(source: Storage) -> bytes:
    """The manifest's content, or a BundleError that says what is there instead."""
    try:
        return source.read(MANIFEST)
    except NotFoundError as error:
        raise BundleError(_no_manifest(source)) from error


def _no_manifest(source: Storage) -> str:
    if source.exists(f"bundle/{MANIFEST}"):
        return f"{source.url} is a run, not a bundle: give {source.url}/bundle."
    keys = [entry.key for entry in source.list_objects()]
    if any(key.startswith(_PARTS) for key in keys):
        return (
            f"the bundle {source.url} is half written: it has no {MANIFEST}; "
            "run the training again to finish it."
        )
    if keys:
        return f"{source.url} is no bundle (a trained network with a {MANIFEST}): {_WHERE}."
    return f"there is no bundle at {source.url}: {_WHERE}."


def _bytes(manifest: Manifest) -> bytes:
    return manifest.model_dump_json(indent=2).encode()


def _parse(data: bytes, origin: str) -> Manifest:
    """The manifest in these bytes; the schema version is judged before all else."""
    try:
        tree = json.loads(data)
    except ValueError as error:
        raise BundleError(_damaged(origin, str(error))) from error
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    if not isinstance(version, int):
        raise BundleError(_damaged(origin, "it names no schema_version"))
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{origin} has schema version {version}, and this segfleet reads {SCHEMA_VERSION}: "
            "use the segfleet that wrote the bundle, or train it anew."
        )
    try:
        return Manifest.model_validate(tree)
    except ValidationError as error:
        fault = error.errors()[0]
        reason = f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}"
        raise BundleError(_damaged(origin, reason)) from error


def _damaged(origin: str, reason: str) -> str:
    return f"{origin} is damaged ({reason}): copy the bundle again or train it anew."


def _lacks(place: str, path: str) -> str:
    return f"the bundle {place} lacks {path}: copy it again or train it anew."


def _check(folder: Path, manifest: Manifest, place: str) -> None:
    """Compare a folder's files with a manifest; place: what to call the bundle in an error."""
    for path, expected in manifest.files.items():
        if not (folder / path).is_file():
            raise BundleError(_lacks(place, path))
        if _digest(folder / path) != expected:
            raise BundleError(
                f"{path} of the bundle {place} has changed since the bundle was written: "
                "copy it again or train it anew."
            )


def _digests(folder: LocalStorage) -> dict[str, str]:
    return {entry.key: _digest(folder.path / entry.key) for entry in folder.list_objects()}


def _digest(file: Path) -> str:
    with translate_errors("read", file), file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
