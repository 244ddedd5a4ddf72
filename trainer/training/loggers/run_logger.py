"""What a run records after every epoch: checkpoint, tables, curves, TensorBoard, previews.

Every table is written from the complete history, which is part of the checkpoint. A run that was
killed and resumed therefore records every epoch exactly once.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.config import Train
from contract.imaging.segmentation_class import SegmentationClass
from contract.imaging.slice_neighbours import center_slice
from contract.storage import Storage
from trainer.training import checkpoints
from trainer.training.checkpoints import ModelState
from trainer.training.loggers.history import EpochMetrics, losses_csv, metrics_csv
from trainer.training.loggers.plots import write_curves
from trainer.training.loggers.tensorboard import TensorBoardLogger
from trainer.visualization import image_grid

# Drawing takes almost a second, as long as a short epoch. The final curves are drawn at the end.
_CURVES_INTERVAL_S = 30.0

PredictMasks = Callable[[ModelState, Sequence[NDArray[np.float32]]], Sequence[NDArray[np.uint8]]]


@dataclass(frozen=True)
class PredictionPreview:
    """The predictions that are drawn after each epoch.

    predict: maps a state and images [H, W, C] in 0..1 to masks [H, W]; images, masks and names: of
    the slices, a mask is None without ground truth; stack_size: of data.neighbours.
    """

    predict: PredictMasks
    images: Sequence[NDArray[np.float32]]
    masks: Sequence[NDArray[np.uint8] | None]
    names: Sequence[str]
    stack_size: int = 1

    def render(self, state: ModelState, classes: Sequence[SegmentationClass]) -> bytes:
        """The slices as a network with this state segments them; a PNG."""
        predictions = self.predict(state, self.images)
        shown = [center_slice(image, self.stack_size) for image in self.images]
        return image_grid.epoch_sheet(shown, predictions, self.masks, self.names, classes)


class RunLogger:
    """Writes the files of one run; only rank 0 has one."""

    def __init__(
        self,
        run: Storage,
        train: Train,
        classes: Sequence[SegmentationClass],
        preview: PredictionPreview | None = None,
    ) -> None:
        self._run, self._train, self._preview = run, train, preview
        self._classes = classes
        self._tensorboard = TensorBoardLogger(run.child("tensorboard"))
        self._last_drawn = time.monotonic()

    def log_epoch(self, state: ModelState, history: Sequence[EpochMetrics]) -> None:
        """Record an epoch: first the checkpoint, which makes it count, then everything else."""
        checkpoint_storage = self._run.child("checkpoints")
        checkpoints.save_checkpoint(checkpoint_storage, state, history)
        checkpoints.delete_old(checkpoint_storage, self._train)
        write_tables(self._run, history)
        if time.monotonic() - self._last_drawn > _CURVES_INTERVAL_S:
            write_curves(self._run, history, self._train.monitor, self._classes)
            self._last_drawn = time.monotonic()
        self._tensorboard.log_epoch(history[-1])
        if self._preview:
            sheet = self._preview.render(state, self._classes)
            self._run.write(f"previews/epoch-{len(history):04d}.png", sheet)

    def close(self) -> None:
        """Delete temporary files."""
        self._tensorboard.close()


def write_tables(run: Storage, history: Sequence[EpochMetrics]) -> None:
    """Write train_metrics.csv and train_losses.csv."""
    run.write("train_metrics.csv", metrics_csv(history))
    run.write("train_losses.csv", losses_csv(history))
