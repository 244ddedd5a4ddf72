"""The training loop of one worker, from settings to the last epoch.

`train` is the same for a worker of a Ray Train worker group and for a trial of a sweep that trains
in its own process; only the `WorkerContext` differs.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray

from contract.config import Config, Train
from contract.errors import TrainingError
from contract.imaging.intensity_scaling import IntensityScaling
from contract.progress import ProgressCallback, no_progress
from contract.storage import Storage, open_storage
from trainer.components import precision
from trainer.components.class_maps import predicted_mask
from trainer.components.encoder_rate import add_encoder_rate
from trainer.components.losses import SegmentationLoss
from trainer.components.metrics import SegmentationMetrics
from trainer.components.network_summary import draw_network, layer_table
from trainer.components.optimizers import build_optimizer
from trainer.components.segmentation_model import SegmentationModel
from trainer.data import cache, pipeline, preview_slices
from trainer.data.cache import CachedSplit
from trainer.data.dataset_index import Dataset, intensity_scaling
from trainer.data.pipeline import WorkerRank
from trainer.data.preprocessing import standardize
from trainer.export.saved_model import SegmentationModule, build_inference_model
from trainer.export.weights import ModelState
from trainer.networks.layers import bind_dropout
from trainer.networks.registry import build_network
from trainer.training import checkpoints
from trainer.training.callbacks import TrainingCallback, ignore_epoch, ignore_stall, is_finished
from trainer.training.encoder_weights import load_encoder_weights
from trainer.training.loggers.history import EpochMetrics
from trainer.training.loggers.run_logger import PredictionPreview, PredictMasks, RunLogger
from trainer.training.model_cache import ModelCache
from trainer.training.model_state import WeightAverages, state_variables
from trainer.training.start_from import load_start_weights


def return_value(value: Any) -> Any:
    """Broadcast among a single worker: its own value."""
    return value


@dataclass(frozen=True)
class WorkerContext:
    """What a worker is given.

    Attributes:
        rank: The rank of the worker and the number of workers.
        broadcast: Returns the value of rank 0 on every rank.
        report_epoch: Called by every rank with the metrics of an epoch; may end the training by
            raising.
        report_progress: Called by rank 0.
        report_stall: Called with the seconds without a step before the watchdog ends the process.
        model_cache: The networks of earlier trainings in this process, if they may be reused.
    """

    rank: WorkerRank = field(default_factory=WorkerRank)
    broadcast: Callable[[Any], Any] = return_value
    report_epoch: Callable[[EpochMetrics], None] = ignore_epoch
    report_progress: ProgressCallback = no_progress
    report_stall: Callable[[float], None] = ignore_stall
    model_cache: ModelCache | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this is rank 0, which alone writes files and reports progress."""
        return self.rank.rank == 0


def train(
    config: Config, dataset: Dataset, run: Storage, ctx: WorkerContext
) -> tuple[EpochMetrics, ...]:
    """Train until the last epoch or an early stop, starting from the latest checkpoint if any.

    Args:
        config: The settings.
        dataset: The prepared slices.
        run: The storage of the run.
        ctx: What this worker is given.

    Returns:
        The metrics of every epoch.

    Raises:
        TrainingError: A metric became NaN or infinite, or a checkpoint, the pre-trained weights or
            the weights of train.start_from cannot be read.
    """
    configure_process(config.train)
    strategy = create_strategy(ctx.rank)
    report_progress = ctx.report_progress if ctx.is_chief else no_progress
    report_progress(0, None, "reading slices")
    policy = ctx.broadcast(
        precision.select_policy(
            config.train.precision,
            precision.read_cpu_flags(),
            precision.gpu_compute_capability(),
        )
    )
    cached = {
        split: cache.load_split(
            dataset, split, config.network, config.storage.cache_gb, config.data
        )
        for split in ("train", "valid")
    }
    scaling = intensity_scaling(dataset, config.data)
    report_progress(0, None, "building the network")
    run_logger = (
        create_run_logger(config, run, cached["valid"], dataset, scaling) if ctx.is_chief else None
    )
    keras.mixed_precision.set_global_policy(policy)
    with strategy.scope():
        compiled = (
            ctx.model_cache.acquire(config, policy, build_compiled_model)
            if ctx.model_cache
            else None
        )
        model = compiled.model if compiled else build_compiled_model(config)
        history = restore_checkpoint(model, run, ctx)
        if not history:
            load_encoder_weights(model, config, run)
            load_start_weights(model, config, run if ctx.is_chief else None)
            WeightAverages(model).reset()
    if ctx.is_chief and not history:
        write_network_files(model, run)
    if is_finished(history, config.train):
        if compiled and ctx.model_cache:
            ctx.model_cache.release(compiled)
        return history
    callback = TrainingCallback(
        config.train,
        history,
        pipeline.steps_per_epoch(config.train, cached["train"].num_samples),
        ctx.report_epoch,
        report_progress,
        run_logger,
        ctx.report_stall,
    )
    with callback.watchdog, cache.report_deleted_slices(cached["train"]):
        fit(model, config, cached, scaling, strategy, callback, ctx.rank)
    if run_logger:
        run_logger.close()
    if compiled and ctx.model_cache:
        ctx.model_cache.release(compiled)
    if callback.stop_reason:
        raise callback.stop_reason
    return tuple(callback.history)


def configure_process(train: Train) -> None:
    """Give TensorFlow and OpenCV the reserved CPUs, and let GPU memory grow."""
    cv2.setNumThreads(1)  # tf.data already processes one sample per thread
    try:
        tf.config.threading.set_intra_op_parallelism_threads(train.cpus_per_worker)
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        # TensorFlow is initialized already: an earlier trial of this process set the same.
        if "initialized" not in str(error):
            raise


def create_strategy(rank: WorkerRank) -> tf.distribute.Strategy:
    """MultiWorkerMirroredStrategy over the workers in TF_CONFIG; the default one for one worker.

    It must be created before TensorFlow computes anything, or it cannot set up its collectives.
    """
    if rank.world_size == 1:
        return tf.distribute.get_strategy()
    implementation = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=implementation.NCCL
        if tf.config.list_physical_devices("GPU")
        else implementation.AUTO
    )
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def build_compiled_model(config: Config) -> keras.Model:
    """The network with loss, metrics and optimizer, whose variables are created.

    run.seed determines its initial weights.
    """
    classes = [each.name for each in config.data.segmentation_classes]
    with seeded_initializers(config.run.seed):
        built = build_network(config.network, len(classes), config.input_channels)
    network = built.training_model
    model = SegmentationModel(network.inputs, network.outputs, name=network.name)
    loss = SegmentationLoss(config.train, classes, built.layout)
    metrics = SegmentationMetrics(classes)
    optimizer = build_optimizer(config.train)
    model.compile(optimizer, loss, weighted_metrics=[metrics], accumulate=config.train.accumulate)
    if config.train.has_encoder_rate:
        add_encoder_rate(model, optimizer)
    model.optimizer.build(model.trainable_variables)
    bind_dropout(model, config.run.seed, lambda: model.part)
    return model


@contextmanager
def seeded_initializers(seed: int) -> Iterator[None]:
    """Determine by a seed what Keras initializers draw in the block.

    An initializer without a seed takes one from Python's random module. keras.utils.set_random_seed
    would seed TensorFlow too, which nothing here uses, and TensorFlow then discards all graphs that
    it has prepared: that costs two seconds in the next network that is reused.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def write_network_files(model: keras.Model, run: Storage) -> None:
    """Write the drawing of a network and the table of its layers to a run."""
    run.write("network.svg", draw_network(model).encode())
    run.write("network.txt", layer_table(model).encode())


def restore_checkpoint(
    model: keras.Model, run: Storage, ctx: WorkerContext
) -> tuple[EpochMetrics, ...]:
    """Load the latest checkpoint that rank 0 finds into the model; its history, or ()."""
    storage = run.child("checkpoints")
    latest = checkpoints.load_latest(storage) if ctx.is_chief else None
    checkpoint = ctx.broadcast(latest[0] if latest else None)
    if checkpoint is None:
        return ()
    state = latest[1] if latest else checkpoints.load_state(storage, checkpoint)
    if state is None:
        raise TrainingError(
            f"worker {ctx.rank.rank} cannot read checkpoint {checkpoint.key} in {storage.url}: "
            "storage.root must be reachable from every node; use an s3:// address."
        )
    for variable, value in zip(state_variables(model), state, strict=True):
        variable.assign(value)
    WeightAverages(model).exchange()
    return checkpoint.history


def fit(
    model: keras.Model,
    config: Config,
    cached: dict[str, CachedSplit],
    scaling: IntensityScaling,
    strategy: tf.distribute.Strategy,
    callback: TrainingCallback,
    rank: WorkerRank,
) -> None:
    """Run Keras's fit on this worker's shard of the samples."""

    def distribute(data: tf.data.Dataset) -> Any:
        # Each worker creates its own shard; TensorFlow must not shard it again.
        return strategy.distribute_datasets_from_function(lambda _: data)

    train, first_epoch = config.train, len(callback.history)
    training = pipeline.training_dataset(
        cached["train"], config.data, scaling, train, config.run.seed, rank, first_epoch
    )
    validation = pipeline.validation_dataset(cached["valid"], scaling, train, rank)
    model.fit(
        distribute(training),
        initial_epoch=first_epoch,
        epochs=train.epochs,
        steps_per_epoch=callback.steps_per_epoch,
        validation_data=distribute(validation),
        validation_steps=pipeline.validation_steps(train, cached["valid"].num_samples),
        verbose=0,
        callbacks=[callback],
    )


def create_run_logger(
    config: Config,
    run: Storage,
    valid: CachedSplit,
    dataset: Dataset,
    scaling: IntensityScaling,
) -> RunLogger:
    """The run's logger, with a copy of the network that rank 0 can run without its peers.

    It is created before the training model: inside the scope of a strategy even reading weights is
    a collective, which rank 0 alone would wait in indefinitely.
    """
    count, source = config.train.preview_images, config.train.preview_source
    slices = (
        preview_slices.load_own_slices(open_storage(source), config, dataset.masks, scaling, count)
        if source and count
        else preview_slices.load_validation_slices(valid, dataset.select("valid"), scaling, count)
    )
    if not slices:
        return RunLogger(run, config.train, config.data.segmentation_classes)
    create = create_window_predictor if config.train.preview_windows else create_predictor
    preview = PredictionPreview(
        predict=create(config, scaling),
        images=[each.image for each in slices],
        masks=[each.mask for each in slices],
        names=[each.name for each in slices],
        stack_size=config.data.stack_size,
    )
    return RunLogger(run, config.train, config.data.segmentation_classes, preview)


def create_predictor(config: Config, scaling: IntensityScaling) -> PredictMasks:
    """A function from a state and images [H, W, C] in 0..1, of the network's size, to masks."""
    num_classes = len(config.data.segmentation_classes)
    model = build_inference_model(config.network, num_classes, config.input_channels)
    classes = [each.name for each in config.data.segmentation_classes]
    thresholds = config.predict.thresholds(classes)
    forward = tf.function(
        lambda images: predicted_mask(
            model(standardize(images, scaling), training=False), thresholds
        ),
        autograph=False,
    )

    def predict(
        state: ModelState, images: Sequence[NDArray[np.float32]]
    ) -> Sequence[NDArray[np.uint8]]:
        model.set_weights(state[: len(model.weights)])
        return list(forward(tf.constant(np.stack(images))).numpy())

    return predict


def create_window_predictor(config: Config, scaling: IntensityScaling) -> PredictMasks:
    """A function from a state and images [H, W, C] in 0..1, of any size, to masks by windows.

    It is the graph of a bundle with predict.sliding_window = true.
    """
    num_classes = len(config.data.segmentation_classes)
    model = build_inference_model(config.network, num_classes, config.input_channels)
    by_windows = config.with_values({"predict.sliding_window": True})
    module = SegmentationModule(model, by_windows, scaling)
    segment = tf.function(module.segment, autograph=False, reduce_retracing=True)
    low, high = scaling.window

    def predict(
        state: ModelState, images: Sequence[NDArray[np.float32]]
    ) -> Sequence[NDArray[np.uint8]]:
        model.set_weights(state[: len(model.weights)])
        raw = [np.round(image * (high - low) + low).astype(np.int32) for image in images]
        return [segment(tf.constant(slices[None]))["mask"][0].numpy() for slices in raw]

    return predict
