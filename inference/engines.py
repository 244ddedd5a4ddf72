"""Inference engines: OpenVINO on CPUs, TensorFlow on GPUs and if OpenVINO cannot run a graph.

Both take slices of one shape and type and return the probabilities and masks of the SavedModel's
signatures. docs/inference.md has the measurements.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, final

import numpy as np

from contract.errors import BundleError, last_line

SAVED_MODEL = "saved_model"
# Signature of each type of slice (contract.bundle).
SIGNATURES = {"uint8": "serving_default", "int32": "int32"}

log = logging.getLogger(__name__)


class Engine(Protocol):
    """Runs a bundle's graph; calls from several threads are serialized."""

    name: str
    """The name of the engine: "OpenVINO" or "TensorFlow"."""

    def infer(self, slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities float32 [B, H, W, K] and masks uint8 [B, H, W] of slices [B, H, W, C].

        slices: uint8 or int32, in C order; C as in contract.bundle. Raises RuntimeError if the
        graph fails on them.
        """
        ...


def create_engine(folder: Path, threads: int, gpu: bool) -> Engine:
    """The fastest engine for a verified bundle folder; BundleError if none can run it.

    threads: CPUs to use. gpu: whether this process may use a GPU.
    """
    if gpu:
        return TensorFlowEngine(folder, threads)
    try:
        return OpenVinoEngine(folder, threads)
    except RuntimeError as error:
        log.warning(
            "OpenVINO cannot run %s (%s): TensorFlow runs it, more slowly.",
            folder,
            last_line(error),
        )
        return TensorFlowEngine(folder, threads)


@final
class OpenVinoEngine:
    """OpenVINO's CPU plugin, in float32 on every processor."""

    name = "OpenVINO"

    def __init__(self, folder: Path, threads: int) -> None:
        """Reads and compiles the graph for uint8; RuntimeError if OpenVINO cannot."""
        self._openvino = _load_openvino()
        self._core = self._openvino.Core()
        self._path = str(folder / SAVED_MODEL)
        self._threads = threads
        self._compiled: dict[tuple[str, int], Any] = {}
        self._lock = threading.Lock()
        self._queue("uint8", 1)

    def infer(self, slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Engine.infer. A single slice uses all threads, several slices use one thread each.

        That is 25 % faster than one after the other on all threads (group normalization, 2 cores).
        """
        probabilities: list[Any] = [None] * len(slices)
        masks = np.empty(slices.shape[:3], np.uint8)

        def on_done(request: Any, index: int) -> None:
            probabilities[index] = request.get_tensor("probability").data[0].copy()
            masks[index] = request.get_tensor("mask").data[0]

        with self._lock:
            queue = self._queue(str(slices.dtype), 1 if len(slices) == 1 else self._threads)
            queue.set_callback(on_done)
            for index in range(len(slices)):
                queue.start_async({0: slices[index : index + 1]}, index)
            queue.wait_all()
        return np.stack(probabilities), masks

    def _queue(self, dtype: str, streams: int) -> Any:
        """Infer requests for one type of slice, compiled on first use."""
        if (dtype, streams) not in self._compiled:
            compiled = self._core.compile_model(
                self._graph(dtype),
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "f32",
                    "INFERENCE_NUM_THREADS": self._threads,
                    "NUM_STREAMS": streams,
                },
            )
            self._compiled[dtype, streams] = self._openvino.AsyncInferQueue(compiled, streams)
        return self._compiled[dtype, streams]

    def _graph(self, dtype: str) -> Any:
        """The graph for single slices of any height, width and channels.

        OpenVINO reads only the signature serving_default. The other one differs only in the type of
        its input, which is changed here (a test compares both with TensorFlow). With a batch size
        of 1 the network has no unknown dimension, which halves its time; several slices are
        several requests.
        """
        graph = self._core.read_model(self._path)
        if dtype != "uint8":
            graph.input(0).get_node().set_element_type(self._openvino.Type(np.dtype(dtype)))
            graph.validate_nodes_and_infer_types()
        graph.reshape([1, -1, -1, -1])
        return graph


@final
class TensorFlowEngine:
    """TensorFlow's runtime, on a GPU if there is one."""

    name = "TensorFlow"

    def __init__(self, folder: Path, threads: int) -> None:
        """Loads the graph; BundleError if TensorFlow cannot."""
        tf = self._tensorflow = _load_tensorflow(threads)
        try:
            # Kept, because the signatures have only weak references to the variables.
            self._model = tf.saved_model.load(str(folder / SAVED_MODEL))
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            reason = last_line(error)
            raise BundleError(
                f"TensorFlow cannot load {folder / SAVED_MODEL}: {reason}."
            ) from error
        self._lock = threading.Lock()

    def infer(self, slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Engine.infer."""
        tf, signature = self._tensorflow, self._model.signatures[SIGNATURES[str(slices.dtype)]]
        try:
            with self._lock:
                outputs = signature(slices=tf.constant(slices))
            return outputs["probability"].numpy(), outputs["mask"].numpy()
        except tf.errors.OpError as error:
            raise RuntimeError(type(error).__name__) from error


def _load_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry.

    On import it would report its use to an analytics service: a process that reads slices of
    patients must not open connections. Without the module, OpenVINO works and reports nothing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    import openvino

    return openvino


def _load_tensorflow(threads: int) -> ModuleType:
    with _hide_modules("keras", "tf_keras"):
        import tensorflow as tf

    # An error after TensorFlow is initialized, which it is when a second bundle is loaded.
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        except RuntimeError:
            log.debug("TensorFlow is initialized already: its number of threads does not change.")
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    return tf


@contextmanager
def _hide_modules(*names: str) -> Iterator[None]:
    """Make modules that are not loaded yet look missing, for the duration of the block.

    TensorFlow imports Keras, for optimizers that a bundle does not have, and works without it.
    """
    absent = [name for name in names if name not in sys.modules]
    missing: dict[str, Any] = dict.fromkeys(absent)
    sys.modules.update(missing)
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)
