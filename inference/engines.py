"""What computes a bundle's graph: OpenVINO on CPUs, TensorFlow on GPUs and where OpenVINO cannot.

Both take slices of one shape and type and give the probabilities and masks of the SavedModel's
own signatures. docs/inference.md has the measurements.
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

from contract.errors import BundleError

SAVED_MODEL = "saved_model"
# Signature of each type of slice (contract.bundle).
SIGNATURES = {"uint8": "serving_default", "int16": "int16"}

log = logging.getLogger(__name__)


class Engine(Protocol):
    """Runs a bundle's graph; safe to call from several threads, one after the other."""

    name: str
    """What computes: "OpenVINO" or "TensorFlow"."""

    def infer(self, slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities float32 [B, H, W] and masks uint8 [B, H, W] of slices [B, H, W, C].

        slices: uint8 or int16, C is 1 or 3. Raises RuntimeError where the graph fails on them.
        """
        ...


def create_engine(folder: Path, threads: int, gpu: bool) -> Engine:
    """The fastest engine for a verified bundle folder; BundleError where none can run it.

    threads: CPUs to use. gpu: whether this process may use a GPU.
    """
    if gpu:
        return TensorFlowEngine(folder, threads)
    try:
        return OpenVinoEngine(folder, threads)
    except RuntimeError as error:
        log.warning(
            "OpenVINO cannot run %s (%s): TensorFlow does, more slowly.", folder, last_line(error)
        )
        return TensorFlowEngine(folder, threads)


@final
class OpenVinoEngine:
    """OpenVINO's CPU plugin, in float32 whatever the processor could do."""

    name = "OpenVINO"

    def __init__(self, folder: Path, threads: int) -> None:
        """Reads and compiles the graph for uint8; RuntimeError where OpenVINO cannot."""
        self._openvino = _load_openvino()
        self._core = self._openvino.Core()
        self._path = str(folder / SAVED_MODEL)
        self._threads = threads
        self._compiled: dict[tuple[str, int], Any] = {}
        self._lock = threading.Lock()
        self._queue("uint8", 1)

    def infer(self, slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Engine.infer; a single slice is given all threads, several run one a thread.

        25 % faster than one after the other on all threads, with group normalisation on 2 cores.
        """
        shape = slices.shape[:3]
        probability, mask = np.empty(shape, np.float32), np.empty(shape, np.uint8)

        def keep(request: Any, index: int) -> None:
            probability[index] = request.get_tensor("probability").data[0]
            mask[index] = request.get_tensor("mask").data[0]

        with self._lock:
            queue = self._queue(str(slices.dtype), 1 if len(slices) == 1 else self._threads)
            queue.set_callback(keep)
            for index in range(len(slices)):
                queue.start_async({0: slices[index : index + 1]}, index)
            queue.wait_all()
        return probability, mask

    def _queue(self, kind: str, streams: int) -> Any:
        """Infer requests for one type of slice, compiled when first asked for."""
        if (kind, streams) not in self._compiled:
            compiled = self._core.compile_model(
                self._graph(kind),
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "f32",
                    "INFERENCE_NUM_THREADS": self._threads,
                    "NUM_STREAMS": streams,
                },
            )
            self._compiled[kind, streams] = self._openvino.AsyncInferQueue(compiled, streams)
        return self._compiled[kind, streams]

    def _graph(self, kind: str) -> Any:
        """The graph for single slices of any height, width and channels.

        OpenVINO reads the signature serving_default only. The other one differs in the type of
        its input and in nothing else, which is changed here (a test compares both with
        TensorFlow). A batch of 1 leaves the network inside without an unknown dimension, which
        halves its time; several slices are several requests.
        """
        graph = self._core.read_model(self._path)
        if kind != "uint8":
            graph.input(0).get_node().set_element_type(self._openvino.Type(np.dtype(kind)))
            graph.validate_nodes_and_infer_types()
        graph.reshape([1, -1, -1, -1])
        return graph


@final
class TensorFlowEngine:
    """TensorFlow's own runtime, on a GPU where it finds one."""

    name = "TensorFlow"

    def __init__(self, folder: Path, threads: int) -> None:
        """Loads the graph; BundleError where TensorFlow cannot."""
        tf = self._tensorflow = _load_tensorflow(threads)
        try:
            # Kept, as the signatures hold the variables by weak references only.
            self._model = tf.saved_model.load(str(folder / SAVED_MODEL))
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            reason = last_line(error).rstrip(".")
            raise BundleError(
                f"TensorFlow cannot load {folder / SAVED_MODEL}: {reason}."
            ) from error
        self._lock = threading.Lock()

    def infer(self, slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Engine.infer."""
        tf, signature = self._tensorflow, self._model.signatures[SIGNATURES[str(slices.dtype)]]
        try:
            with self._lock:
                found = signature(slices=tf.constant(slices))
            return found["probability"].numpy(), found["mask"].numpy()
        except tf.errors.OpError as error:
            raise RuntimeError(type(error).__name__) from error


def last_line(error: Exception) -> str:
    """Of what an engine says, the line that tells what happened; the error's type if it is mute."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU that this process could use."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def _load_openvino() -> ModuleType:
    """OpenVINO without its telemetry.

    On import it would tell its makers' analytics service that it runs: a process that sees
    patients' slices must call nobody. Where the module is missing, OpenVINO goes on without.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    import openvino

    return openvino


def _load_tensorflow(threads: int) -> ModuleType:
    with _hidden("keras", "tf_keras"):
        import tensorflow as tf

    # Refused once TensorFlow has begun to work, which it has when a second bundle is loaded.
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        except RuntimeError:
            log.debug("TensorFlow has started already: its threads stay as they are.")
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    return tf


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Have modules that are not loaded yet look missing, for the time of the block.

    TensorFlow loads Keras when it is imported, for optimizers that a bundle does not have, and
    goes on where there is none.
    """
    absent = [name for name in names if name not in sys.modules]
    missing: dict[str, Any] = dict.fromkeys(absent)
    sys.modules.update(missing)
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)
