"""The model that a service hosts, and how it follows the registry.

A promotion is a new record in the registry. A host looks there now and then, opens the new bundle
beside the old one, tries it, and only then answers with it; what is under way ends on the old one.
Whatever goes wrong with a new one, there is something to answer with: what was hosted, and for a
host that has just started what the stage stood at before.
"""

import logging
from dataclasses import dataclass
from typing import final

import numpy as np

from contract.errors import UserError
from contract.registry import (
    Registry,
    Version,
    open_version_bundle,
    parse_reference,
    rollback_targets,
)
from contract.storage import open_storage
from inference.engines import last_line
from inference.predictor import Predictor, load_predictor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A version of a model, ready to answer."""

    version: Version
    predictor: Predictor

    @property
    def label(self) -> str:
        """ "pancreas@3"."""
        return f"{self.version.name}@{self.version.version}"


@final
class ModelManager:
    """Follows NAME@STAGE (or stays at NAME@VERSION) of a registry."""

    def __init__(self, reference: str, storage_root: str, threads: int, gpu: bool) -> None:
        """threads: CPUs to use. gpu: whether to compute on a GPU."""
        self.reference = reference
        self._registry = Registry(open_storage(storage_root))
        self._threads = threads
        self._gpu = gpu
        self._current: LoadedModel | None = None
        self.load_error: str | None = None
        """Why the last look did not end with what the registry says; None where it did."""

    @property
    def current(self) -> LoadedModel:
        """What answers now; there is none before `begin`."""
        assert self._current is not None, "begin() comes first"
        return self._current

    def load(self) -> None:
        """Host what the reference points at, else the last version its stage stood at before.

        The latter is a `problem`. Raises what stands against the first one where neither can be
        hosted: UserError, or whatever the engine raises.
        """
        try:
            self._follow()
        except Exception as error:
            self._current = self._earlier()
            if self._current is None:
                raise
            self._keep_problem(error)

    def refresh(self) -> None:
        """Host what the reference points at now; a failure is a `problem`, and nothing changes."""
        try:
            self._follow()
        # An engine may raise anything for a bundle that it cannot run.
        except Exception as error:
            self._keep_problem(error)
        else:
            self.load_error = None

    def _follow(self) -> None:
        version = self._registry.resolve(self.reference)
        if self._current is None or self._current.version != version:
            self._current = self._opened(version)
            log.info("answering with %s", self._current.label)

    def _earlier(self) -> LoadedModel | None:
        """The last version that the stage stood at before, and that can be hosted."""
        name, which = parse_reference(self.reference)
        if which.isdecimal():
            return None
        for number in reversed(rollback_targets(self._registry.history(name, which))[:-1]):
            try:
                return self._opened(self._registry.resolve(f"{name}@{number}"))
            except Exception as error:
                log.warning("%s@%d cannot be hosted either: %s", name, number, last_line(error))
        return None

    def _keep_problem(self, error: Exception) -> None:
        """Remember why the reference is not followed, and tell it once."""
        problem = str(error)
        if not isinstance(error, UserError):
            problem = f"{self.reference} cannot be hosted: {last_line(error).rstrip('.')}."
        if problem != self.load_error:
            log.warning("%s answers: %s", self.current.label, problem)
        self.load_error = problem

    def _opened(self, version: Version) -> LoadedModel:
        segmenter = load_predictor(open_version_bundle(version), self._threads, self._gpu)
        side = segmenter.manifest.image_size
        blank = np.zeros((side, side, segmenter.manifest.image_channels), np.uint8)
        # The first slice alone and the first two together have graphs compiled.
        for count in (1, 2):
            segmenter.predict([blank] * count)
        return LoadedModel(version, segmenter)
