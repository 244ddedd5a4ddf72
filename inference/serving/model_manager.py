"""The model that a replica serves, and how it follows the registry.

A promotion is a new record in the registry. A model manager polls the registry, loads a new bundle
next to the old one, runs it once, and only then serves it; requests in flight end on the old one.
If a new bundle cannot be served, the old one continues to serve; a replica that has just started
serves the version that the stage pointed to before.
"""

import logging
from dataclasses import dataclass
from typing import final

import numpy as np

from contract.errors import UserError, last_line
from contract.registry import (
    Registry,
    Version,
    open_version_bundle,
    parse_reference,
    rollback_targets,
)
from contract.storage import open_storage
from inference.predictor import Predictor, load_predictor, warn_if_not_applied

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A version of a model, ready to predict."""

    version: Version
    predictor: Predictor

    @property
    def label(self) -> str:
        """ "pancreas@3"."""
        return f"{self.version.name}@{self.version.version}"


@final
class ModelManager:
    """Follows NAME@STAGE of a registry; NAME@VERSION never changes."""

    def __init__(self, reference: str, storage_root: str, threads: int, gpu: bool) -> None:
        """threads: CPUs to use; gpu: whether to compute on a GPU."""
        self.reference = reference
        self._registry = Registry(open_storage(storage_root))
        self._threads = threads
        self._gpu = gpu
        self._current: LoadedModel | None = None
        self.load_error: str | None = None
        """Why the version that the registry names is not served; None if it is."""

    @property
    def current(self) -> LoadedModel:
        """The model that is served; `load` must be called first."""
        assert self._current is not None, "load() must be called first"
        return self._current

    def load(self) -> None:
        """Load the version that the reference names, else the last earlier one of its stage.

        The latter is a load_error. If neither can be loaded, raises the error of the first one: a
        UserError, or any exception of the engine.
        """
        try:
            self._follow()
        except Exception as error:
            self._current = self._load_earlier()
            if self._current is None:
                raise
            self._set_load_error(error)

    def refresh(self) -> None:
        """Load the version that the reference names now; a failure only sets load_error."""
        try:
            self._follow()
        # An engine may raise any exception for a bundle that it cannot run.
        except Exception as error:
            self._set_load_error(error)
        else:
            self.load_error = None

    def _follow(self) -> None:
        version = self._registry.resolve(self.reference)
        if self._current is None or self._current.version != version:
            self._current = self._load_version(version)
            log.info("serving %s", self._current.label)

    def _load_earlier(self) -> LoadedModel | None:
        """The last version that the stage pointed to before and that can be loaded."""
        name, stage_or_version = parse_reference(self.reference)
        if stage_or_version.isdecimal():
            return None
        earlier = rollback_targets(self._registry.history(name, stage_or_version))[:-1]
        for number in reversed(earlier):
            try:
                return self._load_version(self._registry.resolve(f"{name}@{number}"))
            except Exception as error:
                log.warning("%s@%d cannot be served either: %s", name, number, last_line(error))
        return None

    def _set_load_error(self, error: Exception) -> None:
        """Store why the version of the reference is not served; log each reason once."""
        message = str(error)
        if not isinstance(error, UserError):
            message = f"{self.reference} cannot be served: {last_line(error)}."
        if message != self.load_error:
            log.warning("%s is served: %s", self.current.label, message)
        self.load_error = message

    def _load_version(self, version: Version) -> LoadedModel:
        predictor = load_predictor(open_version_bundle(version), self._threads, self._gpu)
        manifest = predictor.manifest
        warn_if_not_applied(manifest, "the single slices of a service")
        channels = manifest.image_channels * manifest.stack_size
        blank = np.zeros((*manifest.image_size, channels), np.uint8)
        # Graphs are compiled for the first single slice and for the first two slices together.
        for count in (1, 2):
            predictor.predict_batch([blank] * count)
        return LoadedModel(version, predictor)
