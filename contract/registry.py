"""The registry: names, versions and stages of bundles, kept in the storage itself.

    <storage.root>/registry/pancreas/versions/000003.json             what version 3 is
    <storage.root>/registry/pancreas/stages/production/000007.json    the seventh move of the stage

Both are logs: a record is created under the next number and never changed, and of two who create
the same number one is told so. That is all the locking there is. A stage is where its last record
points.
"""

import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Literal, NoReturn, TypeVar, final

from pydantic import BaseModel, ConfigDict, ValidationError

from contract import bundle
from contract.config import closest_match
from contract.errors import BundleError, NotFoundError, RegistryError, as_sentence
from contract.storage import Storage, open_storage

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_STAGE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,79}")
_REFERENCE = re.compile(rf"(?P<name>{_NAME.pattern})@(?P<which>{_NAME.pattern})")
_REGISTER_ATTEMPTS = 20


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="strings"
    )


class Version(_Record):
    """A registered bundle."""

    name: str
    version: int
    """Counts from 1 within the name."""
    bundle: str
    """The bundle's folder or s3:// address."""
    fingerprint: str
    """Of the settings it was trained with."""
    metrics: dict[str, float]
    """The scores its manifest names."""
    created: str
    """When it was registered, ISO 8601 in UTC."""
    digest: str
    """SHA-256 of the bundle's manifest: a version never changes its content."""


class StageTransition(_Record):
    """One change of a stage."""

    number: int
    """Counts from 1 within the stage."""
    version: int
    """What the stage points to from then on."""
    action: Literal["promote", "roll back"]
    created: str
    """When, ISO 8601 in UTC."""


_R = TypeVar("_R", bound=_Record)


@final
class Registry:
    """The registry of a store; storage is what storage.root names.

    Every method raises RegistryError for an unknown or malformed name, version or stage.
    """

    def __init__(self, storage: Storage) -> None:
        self._root = storage
        self._log = storage.child("registry")

    def register(self, name: str, bundle_url: str) -> Version:
        """Give a bundle the next version of a name; one that has a version keeps it.

        Raises BundleError where there is no whole bundle.
        """
        _check_word(name, _NAME, "name")
        source = open_storage(bundle_url)
        manifest, digest = bundle.identify(source)
        for _ in range(_REGISTER_ATTEMPTS):
            known = self._versions(name)
            for version in known:
                if (version.digest, version.bundle) == (digest, source.url):
                    return version
            version = Version(
                name=name,
                version=known[-1].version + 1 if known else 1,
                bundle=source.url,
                fingerprint=manifest.fingerprint,
                metrics=manifest.metrics,
                created=_now(),
                digest=digest,
            )
            if self._append(f"{name}/versions", version.version, self._shortened(version)):
                return version
        raise RegistryError(f"others register {name!r} all the time: try again later.")

    def promote(self, name: str, version: int, stage: str) -> Version:
        """Point a stage at a version; one it points at already leaves no trace.

        Raises RegistryError where another change of the stage came first.
        """
        found = self._version(name, version)
        _check_word(stage, _STAGE, "stage")
        last = self._last_move(name, stage)
        if last is None or last.version != version:
            self._move(name, stage, last, version, "promote")
        return found

    def rollback(self, name: str, stage: str) -> Version:
        """Point a stage at what it pointed at before its last promotion; again: one further."""
        moves = self.history(name, stage)
        past = rollback_targets(moves)
        if len(past) < 2:
            raise RegistryError(
                f"{name}@{stage} points at version {past[-1]}, its first: there is none before it."
            )
        self._move(name, stage, moves[-1], past[-2], "roll back")
        return self._version(name, past[-2])

    def resolve(self, reference: str) -> Version:
        """The version that NAME@STAGE points at now, or that NAME@VERSION names."""
        name, which = parse_reference(reference)
        if which.isdecimal():
            return self._version(name, int(which))
        last = self._last_move(name, which)
        return self._version(name, last.version if last else self._refuse_stage(name, which))

    def names(self) -> list[str]:
        """All registered names."""
        return sorted({entry.key.split("/")[0] for entry in self._log.list_objects()})

    def versions(self, name: str) -> list[Version]:
        """All versions of a name, the oldest first."""
        return self._versions(name) or self._refuse_name(name)

    def stages(self, name: str) -> dict[str, int]:
        """The stages of a name and the version each points at."""
        if not self._numbers(f"{name}/versions"):
            self._refuse_name(name)
        found = {PurePosixPath(e.key).parts[2] for e in self._log.list_objects(f"{name}/stages")}
        last = {stage: self._last_move(name, stage) for stage in sorted(found)}
        return {stage: move.version for stage, move in last.items() if move}

    def history(self, name: str, stage: str) -> list[StageTransition]:
        """All moves of a stage, the oldest first."""
        log = self._stage_log(name, stage)
        moves = [self._record(log, number, StageTransition) for number in self._numbers(log)]
        return moves or self._refuse_stage(name, stage)

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
                self._refuse_name(name)
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

    def _last_move(self, name: str, stage: str) -> StageTransition | None:
        log = self._stage_log(name, stage)
        numbers = self._numbers(log)
        return self._record(log, numbers[-1], StageTransition) if numbers else None

    def _move(
        self,
        name: str,
        stage: str,
        last: StageTransition | None,
        version: int,
        action: Literal["promote", "roll back"],
    ) -> None:
        """Add a move after the last one seen; RegistryError where another came in between."""
        number = last.number + 1 if last else 1
        move = StageTransition(number=number, version=version, action=action, created=_now())
        if not self._append(self._stage_log(name, stage), number, move):
            raise RegistryError(
                f"another change of {name}@{stage} came first: see where it points now, and try "
                "again if it should still change."
            )

    def _append(self, log: str, number: int, record: _Record) -> bool:
        return self._log.create(_key(log, number), record.model_dump_json(indent=2).encode())

    def _record(self, log: str, number: int, kind: type[_R]) -> _R:
        key = _key(log, number)
        try:
            return kind.model_validate_json(self._log.read(key))
        except ValidationError as error:
            raise RegistryError(
                f"the registry's record {self._log.url}/{key} is damaged: restore it from a copy."
            ) from error

    def _numbers(self, log: str) -> list[int]:
        """The numbers of the records of a log, in order."""
        stems = (PurePosixPath(entry.key).stem for entry in self._log.list_objects(log))
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def _refuse_stage(self, name: str, stage: str) -> NoReturn:
        stages = self.stages(name)
        listed = f": it has {', '.join(stages)}; " if stages else ": "
        remedy = f"promote a version to it by {_promotion(self._root, name, 'VERSION', stage)}"
        meant = closest_match(stage, stages).removeprefix("; ") or remedy
        raise RegistryError(as_sentence(f"{name} has no stage {stage!r}{listed}{meant}"))

    def _refuse_name(self, name: str) -> NoReturn:
        names = self.names()
        listed = f"known: {', '.join(names)}" if names else "nothing is registered yet"
        raise RegistryError(
            f"there is no model {name!r} in {self._log.url} ({listed}{closest_match(name, names)}): "
            f"{registration_hint(self._root, name)}."
        )


def registration_hint(storage: Storage, name: str = "NAME") -> str:
    """The commands that give a store's registry a first model, as the end of a sentence."""
    bundle_url = shlex.quote(f"{storage.url}/runs/RUN/bundle")
    registration = f"python -m inference register {name} {bundle_url} {_option(storage)}"
    return (
        f"register a bundle by `{registration}`, then promote it by "
        f"{_promotion(storage, name, '1', 'production')}"
    )


def rollback_targets(moves: Sequence[StageTransition]) -> list[int]:
    """The versions a stage has stood at and may roll back through, the present one last.

    Right as well where somebody has removed the oldest moves.
    """
    past: list[int] = []
    for move in moves:
        if move.action == "roll back":
            del past[-1:]
        if past[-1:] != [move.version]:
            past.append(move.version)
    return past


def parse_reference(reference: str) -> tuple[str, str]:
    """("pancreas", "production") from "pancreas@production"; RegistryError for any other form."""
    found = _REFERENCE.fullmatch(reference)
    if not found:
        raise RegistryError(
            f"{reference!r} must read NAME@STAGE or NAME@VERSION, such as pancreas@production."
        )
    return found["name"], found["which"]


def open_bundle(reference: str, storage_root: str) -> Storage:
    """The bundle a user names: its folder or s3:// address, NAME@STAGE or NAME@VERSION.

    storage_root: the store whose registry knows the name. A registered bundle is refused
    (RegistryError) where its content is no longer the one that was registered. A folder that
    looks like NAME@STAGE is written ./NAME@STAGE.
    """
    if not _REFERENCE.fullmatch(reference):
        return open_storage(reference)
    return open_version_bundle(Registry(open_storage(storage_root)).resolve(reference))


def open_version_bundle(version: Version) -> Storage:
    """The bundle of a version; RegistryError where it is gone or another than was registered."""
    source = open_storage(version.bundle)
    called = f"version {version.version} of {version.name}"
    try:
        _, digest = bundle.identify(source)
    except BundleError as error:
        raise RegistryError(f"{called} has lost its bundle: {error}") from error
    if digest != version.digest:
        raise RegistryError(
            f"the bundle {version.bundle} is no longer {called}: it was replaced since it was "
            "registered; register it as a new version."
        )
    return source


def _promotion(storage: Storage, name: str, version: str, stage: str) -> str:
    return f"`python -m inference promote {name} {version} {stage} {_option(storage)}`"


def _option(storage: Storage) -> str:
    """Always given: the command may be pasted in another folder than that of the default."""
    return f"--storage {shlex.quote(storage.url)}"


def _key(log: str, number: int) -> str:
    return f"{log}/{number:06d}.json"


def _check_word(word: str, pattern: re.Pattern[str], what: str) -> None:
    if not pattern.fullmatch(word):
        raise RegistryError(
            f"{word!r} is no {what}: use letters, digits, dot, dash and underscore, at most 80"
            f"{', a letter first' if pattern is _STAGE else ''}."
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
