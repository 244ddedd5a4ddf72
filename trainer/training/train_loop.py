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
from trainer.networks.registry import build_network
from trainer.components import lr_schedule, metrics, optimizers, precision
from trainer.components.losses import SegmentationLoss
from trainer.data import cache, pipeline
from trainer.data.dataset_index import Dataset, SliceRecord
from trainer.data.pipeline import WorkerRank
from trainer.export.saved_model import build_inference_model
from trainer.networks.layers import bind_dropout
from trainer.training import checkpoints
from trainer.training.checkpoints import EpochMetrics, ModelState
from trainer.training.loggers.run_logger import PredictionPreview, RunLogger
from trainer.training.model_cache import ModelCache, state_variables
from trainer.training.watchdog import Watchdog


def _do_nothing(*_: Any) -> None:
    """For a worker whom nobody watches."""


def _identity(value: Any) -> Any:
    """For a worker without peers: what it says is agreed."""
    return value


@dataclass(frozen=True)
class WorkerContext:
    """What a worker knows of the world.

    agree: returns rank 0's value on every rank; report_epoch: called by every rank with the
    epoch's row, and may end the training by raising; tell: called by rank 0 with (steps done, steps
    in all or None, what it does); shelf: networks of this process's earlier trainings, if it has
    a use for them.
    """

    rank: WorkerRank = field(default_factory=WorkerRank)
    broadcast: Callable[[Any], Any] = _identity
    report_epoch: Callable[[EpochMetrics], None] = _do_nothing
    report_progress: Callable[[int, int | None, str], None] = _do_nothing
    model_cache: ModelCache | None = None


def train(
    config: Config, slices: Dataset, run: Storage, ctx: WorkerContext
) -> tuple[EpochMetrics, ...]:
    """Train until the last epoch or an early stop; returns one row of scores an epoch.

    Starts from the run's newest checkpoint if there is one. Raises TrainingError where the loss
    stops being a number.
    """
    configure_process(config.train)
    strategy = create_strategy(ctx.rank)
    if ctx.rank.rank == 0:
        ctx.report_progress(0, None, "reading slices")
    policy = ctx.broadcast(
        precision.select_policy(
            config.train.precision, precision.read_cpu_flags(), precision.gpu_compute_capability()
        )
    )
    arrays = {split: cache.load_split(config, slices, split) for split in ("train", "valid")}
    journal = None
    if ctx.rank.rank == 0:
        ctx.report_progress(0, None, "building the network")
        journal = create_run_logger(config, run, arrays["valid"], slices.select("valid"))
    keras.mixed_precision.set_global_policy(policy)
    with strategy.scope():
        built = (
            ctx.model_cache.acquire(config, policy, build_compiled_model)
            if ctx.model_cache
            else None
        )
        model = built.model if built else build_compiled_model(config)
        history = restore_checkpoint(model, run, ctx)
    if is_finished(history, config.train):
        return history
    epochs = TrainingCallback(config, history, ctx, journal, len(arrays["train"].images))
    with epochs.watchdog:
        fit(model, config, arrays, strategy, epochs, ctx.rank)
    if built and ctx.model_cache:
        ctx.model_cache.release(built)
    if epochs.stop_reason:
        raise epochs.stop_reason
    return tuple(epochs.history)


def is_finished(history: tuple[EpochMetrics, ...] | list[EpochMetrics], train: Train) -> bool:
    """Whether there is nothing left to train: all epochs done, or stopped early."""
    scores = [row[train.monitor] for row in history]
    return len(history) >= train.epochs or lr_schedule.should_stop(scores, train)


def configure_process(train: Train) -> None:
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


def create_strategy(place: WorkerRank) -> tf.distribute.Strategy:
    """MultiWorkerMirroredStrategy over the workers of TF_CONFIG; TensorFlow's default alone.

    It must come before anything TensorFlow computes, or it cannot set up its collectives.
    """
    if place.world_size == 1:
        return tf.distribute.get_strategy()
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.NCCL
        if tf.config.list_physical_devices("GPU")
        else tf.distribute.experimental.CommunicationImplementation.AUTO
    )
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def build_compiled_model(config: Config) -> keras.Model:
    """The network with its loss, metrics and optimiser, whose variables exist already.

    The seed decides its first weights.
    """
    # Less than keras.utils.set_random_seed, which sets TensorFlow's own seed too: nothing here
    # draws by that, and with it TensorFlow forgets all graphs that it has made ready, which costs
    # two seconds in the next network that is used again.
    backend._SEED_GENERATOR.generator = random.Random(config.run.seed)
    model = build_network(config.network)
    optimizer = optimizers.build_optimizer(config.train)
    model.compile(
        optimizer, SegmentationLoss(config.train.loss), weighted_metrics=metrics.build_metrics()
    )
    model.optimizer.build(model.trainable_variables)
    bind_dropout(model, config.run.seed)
    return model


def restore_checkpoint(
    model: keras.Model, run: Storage, ctx: WorkerContext
) -> tuple[EpochMetrics, ...]:
    """Set the model to the newest checkpoint that rank 0 sees; its history, or none."""
    store = run.child("checkpoints")
    seen = checkpoints.load_latest(store) if ctx.rank.rank == 0 else None
    checkpoint = ctx.broadcast(seen[0] if seen else None)
    if checkpoint is None:
        return ()
    state = seen[1] if seen else checkpoints.load_state(store, checkpoint)
    if state is None:
        raise TrainingError(
            f"worker {ctx.rank.rank} cannot read checkpoint {checkpoint.place} in {store.url}: "
            "storage.root must be reachable from every node; use an s3:// address."
        )
    for variable, value in zip(state_variables(model), state, strict=True):
        variable.assign(value)
    return checkpoint.history


def fit(
    model: keras.Model,
    config: Config,
    arrays: dict[str, cache.CachedSplit],
    strategy: tf.distribute.Strategy,
    epochs: "TrainingCallback",
    place: WorkerRank,
) -> None:
    """Keras's fit over this worker's share of the samples."""

    def spread(data: tf.data.Dataset) -> Any:
        # Each worker makes its own share; TensorFlow must not divide it again.
        return strategy.distribute_datasets_from_function(lambda _: data)

    first = len(epochs.history)
    model.fit(
        spread(pipeline.training_dataset(config, arrays["train"], place, first)),
        initial_epoch=first,
        epochs=config.train.epochs,
        steps_per_epoch=epochs.steps_per_epoch,
        validation_data=spread(pipeline.validation_dataset(config, arrays["valid"], place)),
        validation_steps=pipeline.validation_steps(config, len(arrays["valid"].images)),
        verbose=0,
        callbacks=[epochs],
    )


class TrainingCallback(keras.callbacks.Callback):
    """Sets the learning rate before each step; after each epoch checks, keeps and reports it."""

    def __init__(
        self,
        config: Config,
        history: tuple[EpochMetrics, ...],
        around: WorkerContext,
        journal: RunLogger | None,
        samples: int,
    ) -> None:
        super().__init__()
        self.config, self.ctx, self.run_logger = config, around, journal
        self.history = list(history)
        self.steps_per_epoch = pipeline.steps_per_epoch(config, samples)
        self.watchdog = Watchdog(config.train.stall_timeout_s)
        self.stop_reason: BaseException | None = None
        """What ended the training from outside, after an epoch."""
        self.epoch_start = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the epoch's clock."""
        self.epoch_start = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Set the learning rate of this step."""
        self.model.optimizer.learning_rate = self._learning_rate(batch)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Say that a step was done."""
        self.watchdog.beat()
        if self.ctx.rank.rank == 0:
            done = len(self.history) * self.steps_per_epoch + batch + 1
            total = self.config.train.epochs * self.steps_per_epoch
            # Keras adds the workers' losses up in a batch's logs, and only there.
            loss = (logs or {})["loss"] / self.ctx.rank.world_size
            self.ctx.report_progress(done, total, f"loss {loss:.4f}")

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Validation moves too."""
        self.watchdog.beat()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Check the epoch, keep it (rank 0), report it (every rank), stop early if it is time."""
        row = {"epoch": float(epoch + 1), **{name: float(v) for name, v in (logs or {}).items()}}
        row["learning_rate"] = self._learning_rate(self.steps_per_epoch - 1)
        row["seconds"] = time.monotonic() - self.epoch_start
        check_finite_metrics(row)
        self.history.append(row)
        # Reading a variable may be a collective (statistics of batch normalisation): every rank.
        state = [variable.numpy() for variable in state_variables(self.model)]
        if self.run_logger:
            self.run_logger.log_epoch(state, self.history)
        self.model.stop_training = is_finished(self.history, self.config.train)
        try:
            # A trial that is stopped waits in there until its process has another one to train.
            with self.watchdog.paused():
                self.ctx.report_epoch(row)
        except BaseException as error:
            # Raised when Keras has put the network in order, which the next training may use.
            self.stop_reason = error
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Say what the seconds after the last step are for."""
        if self.ctx.rank.rank == 0:
            total = self.config.train.epochs * self.steps_per_epoch
            self.ctx.report_progress(total, total, "making the bundle")

    def _learning_rate(self, batch: int) -> float:
        train = self.config.train
        progress = len(self.history) + batch / self.steps_per_epoch
        return lr_schedule.learning_rate(
            progress, [row[train.monitor] for row in self.history], train
        )


def check_finite_metrics(row: EpochMetrics) -> None:
    """Raise TrainingError where a score of an epoch is NaN or infinite."""
    bad = [name for name, value in row.items() if not np.isfinite(value)]
    if bad:
        raise TrainingError(
            f"{bad[0]} is no number after epoch {row['epoch']:.0f}: lower train.learning_rate, "
            'set train.clip_norm, or use train.precision = "float32".'
        )


def create_run_logger(
    config: Config, run: Storage, valid: cache.CachedSplit, cases: Sequence[SliceRecord]
) -> RunLogger:
    """The run's journal, with a copy of the network that rank 0 can ask without its peers.

    Made before the training model: inside a strategy's scope even reading the weights is a
    collective, which rank 0 alone would wait in for ever.
    """
    chosen = select_preview_slices(valid, config.train.preview_images)
    samples = [pipeline.load_sample(config, valid, int(index)) for index in chosen]
    if not samples:
        return RunLogger(run, config)
    images = np.array([image for image, _ in samples], np.float32)
    truths = np.array([truth[..., 0] for _, truth in samples], np.uint8)
    copy = build_inference_model(config)
    ask = tf.function(lambda images: copy(images, training=False)[..., 0], autograph=False)

    def probabilities(state: ModelState, images: NDArray[np.float32]) -> NDArray[np.float32]:
        copy.set_weights(state[: len(copy.weights)])
        return ask(tf.constant(images)).numpy()

    names = [cases[index].name for index in chosen]
    return RunLogger(run, config, PredictionPreview(probabilities, images, truths, names))


def select_preview_slices(valid: cache.CachedSplit, count: int) -> NDArray[np.int64]:
    """Slices to draw: evenly over the validation slices with foreground, in their order."""
    with_foreground = np.flatnonzero(valid.masks.reshape(len(valid.masks), -1).any(axis=1))
    places = np.linspace(0, len(with_foreground) - 1, min(count, len(with_foreground)))
    return with_foreground[places.round().astype(int)]
