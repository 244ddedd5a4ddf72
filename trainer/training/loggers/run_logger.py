"""What a run leaves behind after every epoch: checkpoint, tables, curves, pictures, TensorBoard.

Every table is written whole from the history, which travels inside the checkpoint. A run that was
killed and resumed therefore holds every epoch once, whatever was lost in between.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from contract.config import Config
from contract.storage import Storage
from trainer.training import checkpoints
from trainer.training.checkpoints import EpochMetrics, ModelState
from trainer.training.loggers import history as tables
from trainer.visualization import overlays

# Drawing takes most of a second, as long as a short epoch; the last curves are drawn at the end.
_CURVES_EVERY_S = 30.0

Probabilities = Callable[[ModelState, NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class PredictionPreview:
    """What is drawn after each epoch.

    probabilities: from a state and images [n, S, S, C] in 0..1 to [n, S, S]; images and truths:
    the validation slices; names: theirs.
    """

    probabilities: Probabilities
    images: NDArray[np.float32]
    masks: NDArray[np.uint8]
    names: Sequence[str]

    def render(self, state: ModelState, threshold: float) -> bytes:
        """The slices as a network of this state segments them; a PNG."""
        found = self.probabilities(state, self.images)
        return overlays.epoch_sheet(self.images, found, self.masks, self.names, threshold)


class RunLogger:
    """Writes one run's files; only rank 0 has one."""

    def __init__(
        self, run: Storage, config: Config, drawing: PredictionPreview | None = None
    ) -> None:
        self.run, self.config, self.preview = run, config, drawing
        self.tensorboard = TensorBoard(run.child("tensorboard"))
        self.last_drawn = time.monotonic()

    def log_epoch(self, state: ModelState, history: Sequence[EpochMetrics]) -> None:
        """Keep an epoch: first the checkpoint, which makes it count, then all that shows it."""
        store = self.run.child("checkpoints")
        checkpoints.save_checkpoint(store, state, history)
        checkpoints.delete_old(store, self.config.train)
        write_tables(self.run, history)
        if time.monotonic() - self.last_drawn > _CURVES_EVERY_S:
            draw_curves(self.run, history, self.config.train.monitor)
            self.last_drawn = time.monotonic()
        self.tensorboard.log_epoch(history[-1])
        if self.preview:
            sheet = self.preview.render(state, self.config.predict.threshold)
            self.run.write(f"pictures/epoch-{len(history):04d}.png", sheet)


def write_tables(run: Storage, history: Sequence[EpochMetrics]) -> None:
    """train_metrics.csv and train_losses.csv."""
    run.write("train_metrics.csv", tables.metrics_csv(history).encode())
    run.write("train_losses.csv", tables.losses_csv(history).encode())


def draw_curves(run: Storage, history: Sequence[EpochMetrics], monitor: str) -> None:
    """train_metrics.png and train_losses.png."""
    # matplotlib takes half a second to import, and most workers and trials never draw.
    from trainer.visualization import curves

    run.write("train_metrics.png", curves.metrics_png(history, monitor))
    run.write("train_losses.png", curves.losses_png(history, monitor))


class TensorBoard:
    """Scalars of each epoch as TensorBoard's event files, kept where the run is kept."""

    def __init__(self, store: Storage) -> None:
        self.store = store
        self.folder = tempfile.TemporaryDirectory(prefix="segfleet-tensorboard-")
        self.writer = tf.summary.create_file_writer(self.folder.name)

    def log_epoch(self, row: EpochMetrics) -> None:
        """Add an epoch; val_ scores go beside their training scores' names."""
        with self.writer.as_default(step=int(row["epoch"])):
            for name, value in row.items():
                if name != "epoch":
                    tf.summary.scalar(name, value)
        self.writer.flush()
        for path in Path(self.folder.name).iterdir():
            self.store.write(path.name, path.read_bytes())
