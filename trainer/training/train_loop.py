"""What one training worker does, from settings to the last epoch.

`train` is the same for a worker of a Ray Train group and for a sweep's trial that trains in its
own process; only its `Surroundings` differ.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray
from tf_keras.src import backend

from contract.config import Config, Train
from contract.errors import TrainingError
from contract.storage import Storage
from trainer import networks
from trainer.components import lr_schedule, metrics, optimizers, precision
from trainer.components.losses import SegmentationLoss
from trainer.data import cache, pipeline
from trainer.data.dataset_index import Case, Dataset
from trainer.data.pipeline import Place
from trainer.export.saved_model import plain_copy
from trainer.networks.layers import bind
from trainer.training import checkpoints
from trainer.training.checkpoints import Row, State
from trainer.training.loggers.run_logger import Drawing, Journal
from trainer.training.model_cache import Shelf, variables
from trainer.training.watchdog import Watchdog


def _nothing(*_: Any) -> None:
    """For a worker whom nobody watches."""


def _itself(value: Any) -> Any:
    """For a worker without peers: what it says is agreed."""
    return value


@dataclass(frozen=True)
class Surroundings:
    """What a worker knows of the world.

    agree: returns rank 0's value on every rank; report_epoch: called by every rank with the
    epoch's row, and may end the training by raising; tell: called by rank 0 with (steps done, steps
    in all or None, what it does); shelf: networks of this process's earlier trainings, if it has
    a use for them.
    """

    place: Place = field(default_factory=Place)
    agree: Callable[[Any], Any] = _itself
    report_epoch: Callable[[Row], None] = _nothing
    tell: Callable[[int, int | None, str], None] = _nothing
    shelf: Shelf | None = None


def train(config: Config, slices: Dataset, run: Storage, around: Surroundings) -> tuple[Row, ...]:
    """Train until the last epoch or an early stop; returns one row of scores an epoch.

    Starts from the run's newest checkpoint if there is one. Raises TrainingError where the loss
    stops being a number.
    """
    set_up_process(config.train)
    strategy = make_strategy(around.place)
    if around.place.rank == 0:
        around.tell(0, None, "reading slices")
    policy = around.agree(
        precision.choose(config.train.precision, precision.cpu(), precision.capability())
    )
    arrays = {split: cache.arrays(config, slices, split) for split in ("train", "valid")}
    journal = None
    if around.place.rank == 0:
        around.tell(0, None, "building the network")
        journal = make_journal(config, run, arrays["valid"], slices.of("valid"))
    keras.mixed_precision.set_global_policy(policy)
    with strategy.scope():
        built = around.shelf.take(config, policy, compiled) if around.shelf else None
        model = built.model if built else compiled(config)
        history = restore(model, run, around)
    if finished(history, config.train):
        return history
    epochs = Epochs(config, history, around, journal, len(arrays["train"].images))
    with epochs.watchdog:
        fit(model, config, arrays, strategy, epochs, around.place)
    if built and around.shelf:
        around.shelf.put(built)
    if epochs.ended_by:
        raise epochs.ended_by
    return tuple(epochs.history)


def finished(history: tuple[Row, ...] | list[Row], train: Train) -> bool:
    """Whether there is nothing left to train: all epochs done, or stopped early."""
    scores = [row[train.monitor] for row in history]
    return len(history) >= train.epochs or lr_schedule.should_stop(scores, train)


def set_up_process(train: Train) -> None:
    """Give TensorFlow and OpenCV the CPUs that were reserved, and GPUs their memory bit by bit."""
    cv2.setNumThreads(1)  # tf.data already runs one sample per thread
    try:
        tf.config.threading.set_intra_op_parallelism_threads(train.cpus_per_worker)
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        # TensorFlow is up already: an earlier trial of this process has set the same.
        if "initialized" not in str(error):
            raise


def make_strategy(place: Place) -> tf.distribute.Strategy:
    """MultiWorkerMirroredStrategy over the workers of TF_CONFIG; TensorFlow's default alone.

    It must come before anything TensorFlow computes, or it cannot set up its collectives.
    """
    if place.workers == 1:
        return tf.distribute.get_strategy()
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.NCCL
        if tf.config.list_physical_devices("GPU")
        else tf.distribute.experimental.CommunicationImplementation.AUTO
    )
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def compiled(config: Config) -> keras.Model:
    """The network with its loss, metrics and optimiser, whose variables exist already.

    The seed decides its first weights.
    """
    # Less than keras.utils.set_random_seed, which sets TensorFlow's own seed too: nothing here
    # draws by that, and with it TensorFlow forgets all graphs that it has made ready, which costs
    # two seconds in the next network that is used again.
    backend._SEED_GENERATOR.generator = random.Random(config.run.seed)
    model = networks.build(config.network)
    optimizer = optimizers.build(config.train)
    model.compile(optimizer, SegmentationLoss(config.train.loss), weighted_metrics=metrics.build())
    model.optimizer.build(model.trainable_variables)
    bind(model, config.run.seed)
    return model


def restore(model: keras.Model, run: Storage, around: Surroundings) -> tuple[Row, ...]:
    """Set the model to the newest checkpoint that rank 0 sees; its history, or none."""
    store = run.at("checkpoints")
    seen = checkpoints.newest(store) if around.place.rank == 0 else None
    checkpoint = around.agree(seen[0] if seen else None)
    if checkpoint is None:
        return ()
    state = seen[1] if seen else checkpoints.load(store, checkpoint)
    if state is None:
        raise TrainingError(
            f"worker {around.place.rank} cannot read checkpoint {checkpoint.place} in {store.url}: "
            "storage.root must be reachable from every node; use an s3:// address."
        )
    for variable, value in zip(variables(model), state, strict=True):
        variable.assign(value)
    return checkpoint.history


def fit(
    model: keras.Model,
    config: Config,
    arrays: dict[str, cache.Arrays],
    strategy: tf.distribute.Strategy,
    epochs: "Epochs",
    place: Place,
) -> None:
    """Keras's fit over this worker's share of the samples."""

    def spread(data: tf.data.Dataset) -> Any:
        # Each worker makes its own share; TensorFlow must not divide it again.
        return strategy.distribute_datasets_from_function(lambda _: data)

    first = len(epochs.history)
    model.fit(
        spread(pipeline.training(config, arrays["train"], place, first)),
        initial_epoch=first,
        epochs=config.train.epochs,
        steps_per_epoch=epochs.steps,
        validation_data=spread(pipeline.validation(config, arrays["valid"], place)),
        validation_steps=pipeline.validation_steps(config, len(arrays["valid"].images)),
        verbose=0,
        callbacks=[epochs],
    )


class Epochs(keras.callbacks.Callback):
    """Sets the learning rate before each step; after each epoch checks, keeps and reports it."""

    def __init__(
        self,
        config: Config,
        history: tuple[Row, ...],
        around: Surroundings,
        journal: Journal | None,
        samples: int,
    ) -> None:
        super().__init__()
        self.config, self.around, self.journal = config, around, journal
        self.history = list(history)
        self.steps = pipeline.steps_per_epoch(config, samples)
        self.watchdog = Watchdog(config.train.stall_timeout_s)
        self.ended_by: BaseException | None = None
        """What ended the training from outside, after an epoch."""
        self.began = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the epoch's clock."""
        self.began = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Set the learning rate of this step."""
        self.model.optimizer.learning_rate = self._rate(batch)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Say that a step was done."""
        self.watchdog.beat()
        if self.around.place.rank == 0:
            done = len(self.history) * self.steps + batch + 1
            total = self.config.train.epochs * self.steps
            # Keras adds the workers' losses up in a batch's logs, and only there.
            loss = (logs or {})["loss"] / self.around.place.workers
            self.around.tell(done, total, f"loss {loss:.4f}")

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Validation moves too."""
        self.watchdog.beat()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Check the epoch, keep it (rank 0), report it (every rank), stop early if it is time."""
        row = {"epoch": float(epoch + 1), **{name: float(v) for name, v in (logs or {}).items()}}
        row["learning_rate"] = self._rate(self.steps - 1)
        row["seconds"] = time.monotonic() - self.began
        refuse_what_is_no_number(row)
        self.history.append(row)
        # Reading a variable may be a collective (statistics of batch normalisation): every rank.
        state = [variable.numpy() for variable in variables(self.model)]
        if self.journal:
            self.journal.note(state, self.history)
        self.model.stop_training = finished(self.history, self.config.train)
        try:
            # A trial that is stopped waits in there until its process has another one to train.
            with self.watchdog.asleep():
                self.around.report_epoch(row)
        except BaseException as error:
            # Raised when Keras has put the network in order, which the next training may use.
            self.ended_by = error
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Say what the seconds after the last step are for."""
        if self.around.place.rank == 0:
            total = self.config.train.epochs * self.steps
            self.around.tell(total, total, "making the bundle")

    def _rate(self, batch: int) -> float:
        train = self.config.train
        progress = len(self.history) + batch / self.steps
        return lr_schedule.learning_rate(
            progress, [row[train.monitor] for row in self.history], train
        )


def refuse_what_is_no_number(row: Row) -> None:
    """Raise TrainingError where a score of an epoch is NaN or infinite."""
    bad = [name for name, value in row.items() if not np.isfinite(value)]
    if bad:
        raise TrainingError(
            f"{bad[0]} is no number after epoch {row['epoch']:.0f}: lower train.learning_rate, "
            'set train.clip_norm, or use train.precision = "float32".'
        )


def make_journal(
    config: Config, run: Storage, valid: cache.Arrays, cases: Sequence[Case]
) -> Journal:
    """The run's journal, with a copy of the network that rank 0 can ask without its peers.

    Made before the training model: inside a strategy's scope even reading the weights is a
    collective, which rank 0 alone would wait in for ever.
    """
    chosen = chosen_slices(valid, config.train.pictures)
    samples = [pipeline.plain(config, valid, int(index)) for index in chosen]
    if not samples:
        return Journal(run, config)
    images = np.array([image for image, _ in samples], np.float32)
    truths = np.array([truth[..., 0] for _, truth in samples], np.uint8)
    copy = plain_copy(config)
    ask = tf.function(lambda images: copy(images, training=False)[..., 0], autograph=False)

    def probabilities(state: State, images: NDArray[np.float32]) -> NDArray[np.float32]:
        copy.set_weights(state[: len(copy.weights)])
        return ask(tf.constant(images)).numpy()

    names = [cases[index].name for index in chosen]
    return Journal(run, config, Drawing(probabilities, images, truths, names))


def chosen_slices(valid: cache.Arrays, count: int) -> NDArray[np.int64]:
    """Slices to draw: evenly over the validation slices with foreground, in their order."""
    with_foreground = np.flatnonzero(valid.masks.reshape(len(valid.masks), -1).any(axis=1))
    places = np.linspace(0, len(with_foreground) - 1, min(count, len(with_foreground)))
    return with_foreground[places.round().astype(int)]
