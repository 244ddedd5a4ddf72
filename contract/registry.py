"""The registry: names, versions and stages of bundles, stored in the storage itself.

    <storage.root>/registry/pancreas/versions/000003.json             what version 3 is
    <storage.root>/registry/pancreas/stages/production/000007.json    its seventh transition
    <storage.root>/registry/pancreas/bundles/<digest>/bundle/         the bundles of its versions

Both are logs: a record is created under the next number and never changed. If two processes create
the same number, one of them gets an error; there is no other locking. A stage points to the version
in its last record.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal, NoReturn, TypeVar, final

from pydantic import BaseModel, ConfigDict, ValidationError

from contract import bundle
from contract.config import closest_match
from contract.config.start_from import split_digest
from contract.errors import BundleError, NotFoundError, RegistryError, as_sentence
from contract.storage import Storage, open_storage
from contract.timestamps import utc_now

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_STAGE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,79}")
_REFERENCE = re.compile(rf"(?P<name>{_NAME.pattern})@(?P<which>{_NAME.pattern})")
_REGISTER_ATTEMPTS = 20


class _RegistryRecord(BaseModel):
    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="strings"
    )


class Version(_RegistryRecord):
    """A registered bundle."""

    name: str
    version: int
    """Counts from 1 within the name."""
    bundle: str
    """The bundle's folder or s3:// address."""
    fingerprint: str
    """Of the settings it was trained with."""
    metrics: dict[str, float]
    """The metrics in its manifest."""
    created: str
    """When it was registered, ISO 8601 in UTC."""
    digest: str
    """SHA-256 of the bundle's manifest: a version never changes its content."""


class StageTransition(_RegistryRecord):
    """One change of a stage."""

    number: int
    """Counts from 1 within the stage."""
    version: int
    """The version that the stage points to after it."""
    action: Literal["promote", "rollback"]
    created: str
    """When, ISO 8601 in UTC."""


_R = TypeVar("_R", bound=_RegistryRecord)


@final
class Registry:
    """The registry of a store; storage is what storage.root names.

    Every method raises RegistryError for an unknown or malformed name, version or stage.
    """

    def __init__(self, storage: Storage) -> None:
        self._root = storage
        self._log = storage.child("registry")

    def register(self, name: str, bundle_url: str, copy: bool = True) -> Version:
        """Register a bundle as the next version of a name; a registered bundle keeps its version.

        Args:
            name: Name of the model.
            bundle_url: Folder or s3:// address of the bundle.
            copy: Copy the bundle into the registry, so that the version does not depend on the run
                that created it; False: refer to the bundle where it is.

        Raises:
            BundleError: The bundle is missing, incomplete, or a file of it has changed.
        """
        _check_word(name, _NAME, "name")
        source = open_storage(bundle_url)
        bundle.fetch(source)
        manifest, digest = bundle.identify(source)
        # Equal bundles have the same copy. An evaluation is written next to a folder named bundle.
        target = self._log.child(f"{name}/bundles/{digest[:16]}/bundle") if copy else source
        for _ in range(_REGISTER_ATTEMPTS):
            known = self._versions(name)
            for version in known:
                if (version.digest, version.bundle) == (digest, target.url):
                    return version
            if copy:
                bundle.copy_bundle(source, target)
            version = Version(
                name=name,
                version=known[-1].version + 1 if known else 1,
                bundle=target.url,
                fingerprint=manifest.fingerprint,
                metrics=manifest.metrics,
                created=utc_now(),
                digest=digest,
            )
            if self._append(f"{name}/versions", version.version, self._shortened(version)):
                return version
        raise RegistryError(f"other processes register {name!r} continuously: try again later.")

    def promote(self, name: str, version: int, stage: str) -> Version:
        """Point a stage to a version; nothing is recorded if it already points to it.

        Raises RegistryError if the stage was changed concurrently, or the bundle of the version is
        missing or has changed.
        """
        result = self._version(name, version)
        _check_word(stage, _STAGE, "stage")
        try:
            bundle.fetch(open_version_bundle(result))
        except BundleError as error:
            raise RegistryError(f"{name}@{version} cannot be promoted: {error}") from error
        last = self._last_transition(name, stage)
        if last is None or last.version != version:
            self._add_transition(name, stage, last, version, "promote")
        return result

    def rollback(self, name: str, stage: str) -> Version:
        """Point a stage to the version before its last promotion; repeated: one further back."""
        transitions = self.history(name, stage)
        targets = rollback_targets(transitions)
        if len(targets) < 2:
            raise RegistryError(
                f"{name}@{stage} points to version {targets[-1]}, the first one: there is no "
                "earlier version to roll back to."
            )
        self._add_transition(name, stage, transitions[-1], targets[-2], "rollback")
        return self._version(name, targets[-2])

    def resolve(self, reference: str) -> Version:
        """The version that NAME@STAGE points to now, or that NAME@VERSION names."""
        name, stage_or_version = parse_reference(reference)
        if stage_or_version.isdecimal():
            return self._version(name, int(stage_or_version))
        last = self._last_transition(name, stage_or_version)
        version = last.version if last else self._raise_unknown_stage(name, stage_or_version)
        return self._version(name, version)

    def find_version(self, name: str, digest: str) -> Version:
        """The version of a name whose bundle has a digest."""
        for version in self.versions(name):
            if version.digest == digest:
                return version
        raise RegistryError(f"{name} has no version with SHA-256 {digest}: register the bundle.")

    def names(self) -> list[str]:
        """All registered names."""
        return sorted({entry.key.split("/")[0] for entry in self._log.list_objects()})

    def versions(self, name: str) -> list[Version]:
        """All versions of a name, the oldest first."""
        return self._versions(name) or self._raise_unknown_name(name)

    def stages(self, name: str) -> dict[str, int]:
        """The stages of a name and the version that each points to."""
        if not self._numbers(f"{name}/versions"):
            self._raise_unknown_name(name)
        result = {PurePosixPath(e.key).parts[2] for e in self._log.list_objects(f"{name}/stages")}
        last = {stage: self._last_transition(name, stage) for stage in sorted(result)}
        return {stage: move.version for stage, move in last.items() if move}

    def history(self, name: str, stage: str) -> list[StageTransition]:
        """All transitions of a stage, the oldest first."""
        log = self._stage_log(name, stage)
        transitions = [self._record(log, number, StageTransition) for number in self._numbers(log)]
        return transitions or self._raise_unknown_stage(name, stage)

    def _versions(self, name: str) -> list[Version]:
        _check_word(name, _NAME, "name")
        return [self._read_version(name, number) for number in self._numbers(f"{name}/versions")]

    def _version(self, name: str, number: int) -> Version:
        _check_word(name, _NAME, "name")
        try:
            return self._read_version(name, number)
        except NotFoundError as error:
            known = self._numbers(f"{name}/versions")
            if not known:
                self._raise_unknown_name(name)
            raise RegistryError(
                f"{name} has no version {number}: it has {known[0]} to {known[-1]}."
            ) from error

    def _read_version(self, name: str, number: int) -> Version:
        version = self._record(f"{name}/versions", number, Version)
        if "://" in version.bundle or version.bundle.startswith("/"):
            return version
        return version.model_copy(update={"bundle": self._root.child(version.bundle).url})

    def _shortened(self, version: Version) -> Version:
        """The record of a version; a bundle of this store by its key, as the store may move."""
        here = self._root.url.rstrip("/") + "/"
        return version.model_copy(update={"bundle": version.bundle.removeprefix(here)})

    def _stage_log(self, name: str, stage: str) -> str:
        _check_word(name, _NAME, "name")
        _check_word(stage, _STAGE, "stage")
        return f"{name}/stages/{stage}"

    def _last_transition(self, name: str, stage: str) -> StageTransition | None:
        log = self._stage_log(name, stage)
        numbers = self._numbers(log)
        return self._record(log, numbers[-1], StageTransition) if numbers else None

    def _add_transition(
        self,
        name: str,
        stage: str,
        last: StageTransition | None,
        version: int,
        action: Literal["promote", "rollback"],
    ) -> None:
        """Add a transition after the last one; RegistryError if it was changed concurrently."""
        number = last.number + 1 if last else 1
        transition = StageTransition(
            number=number, version=version, action=action, created=utc_now()
        )
        if not self._append(self._stage_log(name, stage), number, transition):
            raise RegistryError(
                f"{name}@{stage} was changed concurrently: check where it points now, and try "
                "again if it should still change."
            )

    def _append(self, log: str, number: int, record: _RegistryRecord) -> bool:
        return self._log.create(_key(log, number), record.model_dump_json(indent=2).encode())

    def _record(self, log: str, number: int, kind: type[_R]) -> _R:
        key = _key(log, number)
        try:
            return kind.model_validate_json(self._log.read(key))
        except ValidationError as error:
            raise RegistryError(
                f"the registry record {self._log.url}/{key} is damaged: restore it from a copy."
            ) from error

    def _numbers(self, log: str) -> list[int]:
        """The numbers of the records of a log, sorted."""
        stems = (PurePosixPath(entry.key).stem for entry in self._log.list_objects(log))
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def _raise_unknown_stage(self, name: str, stage: str) -> NoReturn:
        stages = self.stages(name)
        listed = f": it has {', '.join(stages)}; " if stages else ": "
        remedy = (
            f"promote a version to it with {_promote_command(self._root, name, 'VERSION', stage)}"
        )
        meant = closest_match(stage, stages).removeprefix("; ") or remedy
        raise RegistryError(as_sentence(f"{name} has no stage {stage!r}{listed}{meant}"))

    def _raise_unknown_name(self, name: str) -> NoReturn:
        names = self.names()
        listed = f"known: {', '.join(names)}" if names else "nothing is registered yet"
        raise RegistryError(
            f"there is no model {name!r} in {self._log.url} "
            f"({listed}{closest_match(name, names)}): "
            f"{registration_hint(self._root, name)}."
        )


def registration_hint(storage: Storage, name: str = "NAME") -> str:
    """The commands that register a first model in a store, as the end of a sentence."""
    bundle_url = shlex.quote(f"{storage.url}/runs/RUN/bundle")
    registration = f"segfleet models register {name} {bundle_url} {_storage_option(storage)}"
    return (
        f"register a bundle with `{registration}`, and promote it with "
        f"{_promote_command(storage, name, '1', 'production')}"
    )


def rollback_targets(transitions: Sequence[StageTransition]) -> list[int]:
    """The versions that a stage has pointed to and may be rolled back to, the current one last.

    Correct too if the oldest transitions were deleted.
    """
    targets: list[int] = []
    for transition in transitions:
        if transition.action == "rollback":
            del targets[-1:]
        if targets[-1:] != [transition.version]:
            targets.append(transition.version)
    return targets


def parse_reference(reference: str) -> tuple[str, str]:
    """("pancreas", "production") from "pancreas@production"; RegistryError for any other form."""
    result = _REFERENCE.fullmatch(reference)
    if not result:
        raise RegistryError(
            f"{reference!r} must read NAME@STAGE or NAME@VERSION, such as pancreas@production."
        )
    return result["name"], result["which"]


def open_bundle(reference: str, storage_root: str) -> Storage:
    """The bundle a user names: its folder or s3:// address, NAME@STAGE or NAME@VERSION, or a run.

    A run is named by its folder, its address or its name. @sha256:DIGEST after the reference
    requires the bundle whose manifest has this SHA-256; of NAME@STAGE it is that version of NAME,
    wherever the stage points to now. A folder whose name looks like NAME@STAGE is written as
    ./NAME@STAGE.

    storage_root: the store with the runs and with the registry that knows the name. Raises
    RegistryError if the content of a registered bundle has changed since it was registered, or a
    bundle does not have the digest.
    """
    name, digest = split_digest(reference)
    if _REFERENCE.fullmatch(name):
        registry = Registry(open_storage(storage_root))
        if digest is None:
            return open_version_bundle(registry.resolve(name))
        return open_version_bundle(registry.find_version(parse_reference(name)[0], digest))
    source = _find_bundle(name, storage_root)
    if digest is not None and (actual := bundle.identify(source)[1]) != digest:
        raise RegistryError(
            f"the bundle {source.url} was replaced (SHA-256 {digest[:12]}…, now {actual[:12]}…): "
            "restore it from a copy, or name another bundle."
        )
    return source


def _find_bundle(reference: str, storage_root: str) -> Storage:
    """A bundle by its folder or address, or by those or the name of its run."""
    source = open_storage(reference)
    candidates = [source, source.child("bundle")]
    if _NAME.fullmatch(reference):
        candidates.append(open_storage(storage_root).child(f"runs/{reference}/bundle"))
    return next((each for each in candidates if each.exists(bundle.MANIFEST)), source)


def open_version_bundle(version: Version) -> Storage:
    """The bundle of a version; RegistryError if it is missing or has changed."""
    source = open_storage(version.bundle)
    label = f"version {version.version} of {version.name}"
    try:
        _, digest = bundle.identify(source)
    except BundleError as error:
        raise RegistryError(f"the bundle of {label} is missing or damaged: {error}") from error
    if digest != version.digest:
        raise RegistryError(
            f"the bundle {version.bundle} is no longer {label}: it was replaced after it was "
            "registered; register it as a new version."
        )
    return source


def _promote_command(storage: Storage, name: str, version: str, stage: str) -> str:
    return f"`segfleet models promote {name} {version} {stage} {_storage_option(storage)}`"


def _storage_option(storage: Storage) -> str:
    """Always included: the command may be run in another folder than that of the default."""
    return f"--storage {shlex.quote(storage.url)}"


def _key(log: str, number: int) -> str:
    return f"{log}/{number:06d}.json"


def _check_word(word: str, pattern: re.Pattern[str], label: str) -> None:
    if not pattern.fullmatch(word):
        raise RegistryError(
            f"{word!r} is not a valid {label}: use letters, digits, dot, dash and underscore, "
            f"at most 80{', a letter first' if pattern is _STAGE else ''}."
        )
