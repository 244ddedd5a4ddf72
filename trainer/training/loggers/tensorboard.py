"""The metrics of each epoch as TensorBoard event files, stored with the run."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from contract.storage import Storage
from contract.temp_folders import folder_prefix


class TensorBoardLogger:
    """Writes event files to a temporary folder and copies them to storage after each epoch."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._folder = tempfile.TemporaryDirectory(prefix=folder_prefix("tensorboard"))
        self._writer = tf.summary.create_file_writer(self._folder.name)

    def log_epoch(self, metrics: Mapping[str, float]) -> None:
        """Add the metrics of an epoch as scalars."""
        with self._writer.as_default(step=int(metrics["epoch"])):
            for name, value in metrics.items():
                if name != "epoch":
                    tf.summary.scalar(name, value)
        self._writer.flush()
        for path in Path(self._folder.name).iterdir():
            self._storage.write(path.name, path.read_bytes())

    def close(self) -> None:
        """Delete the temporary folder."""
        self._writer.close()
        self._folder.cleanup()
