"""The model that a service hosts, and how it follows the registry.

A promotion is a new record in the registry. A host looks there now and then, opens the new bundle
beside the old one, tries it, and only then answers with it; what is under way ends on the old one.
"""

import logging
from dataclasses import dataclass
from typing import final

import numpy as np

from contract.errors import UserError
from contract.registry import Registry, Version, open_version
from contract.storage import open_storage
from inference.segmenter import Segmenter, open_segmenter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hosted:
    """A version of a model, ready to answer."""

    version: Version
    segmenter: Segmenter

    @property
    def called(self) -> str:
        """ "pancreas@3"."""
        return f"{self.version.name}@{self.version.version}"


@final
class Host:
    """Follows NAME@STAGE (or stays at NAME@VERSION) of a registry."""

    def __init__(self, reference: str, storage_root: str, threads: int, gpu: bool) -> None:
        """threads: CPUs to use. gpu: whether to compute on a GPU."""
        self.reference = reference
        self._registry = Registry(open_storage(storage_root))
        self._threads = threads
        self._gpu = gpu
        self._current: Hosted | None = None
        self.problem: str | None = None
        """Why the last look did not end with what the registry says; None where it did."""

    @property
    def current(self) -> Hosted:
        """What answers now; there is none before the first `follow`."""
        assert self._current is not None, "follow() comes first"
        return self._current

    def follow(self) -> None:
        """Host what the reference points at now.

        Raises UserError where that cannot be hosted; what was hosted stays.
        """
        version = self._registry.resolve(self.reference)
        if self._current is None or self._current.version != version:
            self._current = self._opened(version)
            log.info("answering with %s", self._current.called)

    def look(self) -> None:
        """Follow; a failure is kept as `problem` and told once, and what is hosted stays."""
        try:
            self.follow()
        except (UserError, RuntimeError, OSError) as error:
            if str(error) != self.problem:
                log.warning("%s stays as it is: %s", self.current.called, error)
            self.problem = str(error)
        else:
            self.problem = None

    def _opened(self, version: Version) -> Hosted:
        segmenter = open_segmenter(open_version(version), self._threads, self._gpu)
        side = segmenter.manifest.image_size
        blank = np.zeros((side, side, segmenter.manifest.image_channels), np.uint8)
        # The first slice alone and the first two together have graphs compiled.
        for count in (1, 2):
            segmenter.segment([blank] * count)
        return Hosted(version, segmenter)
