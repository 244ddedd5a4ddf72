"""Slices a second and milliseconds a slice: the service, a bare loop, and a plain Keras script.

All on the same JPEG slices of 512 x 512 (the phantom), the network of configs/pancreas.toml with
its first weights, and the same CPUs; the client shares them with the service.

Ways, each in a process of its own, taken in turn round by round:

    keras     decode (OpenCV), resize, Keras `model.predict` of one slice, resize, encode PNG
    bare      decode, the bundle by TensorFlow or by OpenVINO, encode; one slice after the other
    service   HTTP requests to `segfleet deploy`, 1, 8 or 32 in flight
"""

import http.client
import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from benchmarks.record import arguments, publish, table
from contract.config import Config
from contract.config.loader import load_config, to_toml
from contract.host_info import cpu_count
from contract.registry import Registry
from contract.storage import open_storage

IN_FLIGHT = (1, 8, 32)
KERAS_WAY = "Keras `model.predict`"
BARE_WAY = "bare loop, OpenVINO"


@dataclass(frozen=True)
class Round:
    """One turn of a way."""

    taken: list[float]
    """Seconds of every slice."""
    speed: float
    """Slices a second."""


PREPARE = """
import sys
import cv2
from contract import bundle
from contract.config.loader import load_config
from contract.storage import open_storage
from trainer.export import saved_model
from trainer.data.dataset_index import prepare_dataset
from contract.config import Config
from contract.host_info import host_info
from contract.imaging.decode import read_image
from contract.imaging.intensity_scaling import IntensityScaling
from contract.timestamps import utc_now

config, folder = load_config(sys.argv[1]), open_storage(sys.argv[2])
drawn = config.with_values({"data.source": "phantom", "data.root": None, "data.phantom.size": 512,
    "data.phantom.train_patients": 1, "data.phantom.valid_patients": 1,
    "data.phantom.test_patients": 1, "data.phantom.slices": 16})
dataset = prepare_dataset(drawn.data, 0, folder)
for number, record in enumerate(dataset.slices[:16]):
    image = read_image(open_storage(dataset.root), record.image)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    folder.write(f"slices/{number:02}.jpg", cv2.imencode(".jpg", image, quality)[1].tobytes())
metadata = bundle.BundleMetadata(name="benchmark", created=utc_now(), commit=None,
    machine=host_info()["machine"],
    fingerprint=config.fingerprint(), dataset=dataset.fingerprint, patients={},
    image_size=config.network.image_shape,
    image_channels=config.network.image_channels,
    neighbours=config.data.neighbours,
    classes=config.data.segmentation_classes,
    intensity_scaling=IntensityScaling.from_window(
        config.data.intensity_low, config.data.intensity_high),
    class_tolerance=config.data.class_tolerance,
    other_values_are_background=config.data.other_values_are_background,
    threshold=config.predict.threshold, metrics={})
model = saved_model.build_inference_model(config.network, 1, config.input_channels)
saved_model.export_bundle(model, config, metadata, folder.child("bundle"))
"""

# Answers each line of seconds on its standard input with the seconds every slice took.
LOOP = """
import json, sys, time
from itertools import cycle
from pathlib import Path

images = [file.read_bytes() for file in sorted(Path(sys.argv[2], "slices").glob("*.jpg"))]
for data in images[:3]:
    segment(data)
print("ready", flush=True)
for line in sys.stdin:
    end, taken, turn = time.perf_counter() + float(line), [], cycle(images)
    while (start := time.perf_counter()) < end:
        segment(next(turn))
        taken.append(time.perf_counter() - start)
    print(json.dumps(taken), flush=True)
"""

KERAS = """
import sys
import cv2, numpy as np, tensorflow as tf
from contract.config.loader import load_config
from trainer.networks.registry import build_network

config = load_config(sys.argv[1])
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[3]))
model = build_network(config.network, 1, config.input_channels)
height, width = config.network.image_shape
low, high = config.data.intensity_low, config.data.intensity_high

def segment(data):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    batch = ((np.clip(small, low, high) - low) / (high - low))[None, ..., None]
    maps = model.predict(batch, verbose=0)[0, ..., 0]
    full = cv2.resize(maps, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
    mask = (full > config.predict.threshold).astype(np.uint8) * 255
    return cv2.imencode(".png", mask)[1].tobytes()
"""

BARE = """
import sys
from pathlib import Path
from inference.engines import OpenVinoEngine, TensorFlowEngine
from contract.imaging.decode import decode_image
from contract.imaging.encode import encode_mask
from contract.imaging.segmentation_class import single_foreground

engine = {kind}(Path(sys.argv[2], "bundle"), int(sys.argv[3]))

def segment(data):
    mask = engine.infer(decode_image(data, "image")[None])[1][0]
    return encode_mask(mask, single_foreground())
"""


def main() -> None:
    """Measure all ways round by round and publish speeds, latencies and ratios."""
    chosen = arguments(__doc__).parse_args()
    rounds, seconds = (1, 0.5) if chosen.quick else (3, 5.0)
    measured: dict[str, list[Round]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path, config = settings(Path(folder))
        subprocess.run([sys.executable, "-c", PREPARE, str(path), folder], check=True)
        promote_bundle(config, folder)
        loops = {
            KERAS_WAY: stack.enter_context(loop(KERAS, path, folder)),
            "bare loop, TensorFlow": stack.enter_context(bare("TensorFlowEngine", path, folder)),
            BARE_WAY: stack.enter_context(bare("OpenVinoEngine", path, folder)),
        }
        port = stack.enter_context(service(path))
        images = [file.read_bytes() for file in sorted(Path(folder, "slices").glob("*.jpg"))]
        load_service(port, images, 2, 1.0)
        for _ in range(rounds):
            for name, process in loops.items():
                measured[name].append(timed(lambda p=process: ask(p, seconds)))
            for count in IN_FLIGHT:
                measured_round = timed(lambda c=count: load_service(port, images, c, seconds))
                measured[f"service, {count} in flight"].append(measured_round)
    publish("serving", report(measured), chosen.write)


def timed(measure: Callable[[], list[float]]) -> Round:
    """A turn of a way, and its slices a second."""
    start = time.perf_counter()
    taken = measure()
    return Round(taken, len(taken) / (time.perf_counter() - start))


def settings(folder: Path) -> tuple[Path, Config]:
    """The shipped network and service, with all CPUs for one replica."""
    shipped = load_config(Path(__file__).parents[1] / "configs" / "pancreas.toml")
    config = shipped.with_values(
        {
            "storage.root": str(folder),
            "serve.port": free_port(),
            "serve.cpus_per_replica": cpu_count(),
        }
    )
    path = folder / "serving.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    return path, config


def promote_bundle(config: Config, folder: str) -> None:
    """Register the bundle under the name that the settings serve."""
    name, stage = config.serve.model.split("@")
    registry = Registry(open_storage(folder))
    version = registry.register(name, f"{folder}/bundle")
    registry.promote(name, version.version, stage)


@contextmanager
def loop(script: str, path: Path, folder: str) -> Iterator[subprocess.Popen[str]]:
    """A process that measures a way whenever it is asked, ready when this returns."""
    words = [sys.executable, "-c", script + LOOP, str(path), folder, str(cpu_count())]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the loop did not start"
        try:
            yield process
        finally:
            process.terminate()


def bare(kind: str, path: Path, folder: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """The bare loop over an engine."""
    return loop(BARE.replace("{kind}", kind), path, folder)


def ask(process: subprocess.Popen[str], seconds: float) -> list[float]:
    """The seconds of every slice that a loop segments in so many seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


@contextmanager
def service(path: Path) -> Iterator[int]:
    """The service as its command starts it, answering when this returns; gives its port."""
    words = [sys.executable, "-m", "inference", "deploy", str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        measured_round = re.search(r":(\d+)$", line.strip())
        assert measured_round, f"the service did not start: {line}"
        try:
            yield int(measured_round[1])
        finally:
            process.send_signal(signal.SIGTERM)


def load_service(port: int, images: list[bytes], count: int, seconds: float) -> list[float]:
    """The seconds of every request that so many clients at once make in so many seconds."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    clients = [
        threading.Thread(
            target=client, args=(port, images[index % len(images) :] + images, end, taken)
        )
        for index in range(count)
    ]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    return taken


def client(port: int, images: list[bytes], end: float, taken: list[float]) -> None:
    """Send slices one after the other over one connection until the end."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    turn = cycle(images)
    while (start := time.perf_counter()) < end:
        connection.request("POST", "/v1/segment", next(turn), {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        taken.append(time.perf_counter() - start)
    connection.close()


def free_port() -> int:
    """A port no one listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def report(measured: dict[str, list[Round]]) -> str:
    """The table: the median round's speed, latencies over all rounds, and ratios."""
    speed = {name: statistics.median(r.speed for r in rounds) for name, rounds in measured.items()}
    slow, fast = speed[KERAS_WAY], speed[BARE_WAY]
    rows = []
    for name, rounds in measured.items():
        every = sorted(second for one in rounds for second in one.taken)
        p50, p90 = (1000 * every[int(share * (len(every) - 1))] for share in (0.5, 0.9))
        ratios = f"{speed[name] / slow:.2f}", f"{speed[name] / fast:.2f}"
        rows.append([name, f"{speed[name]:.1f}", f"{p50:.1f}", f"{p90:.1f}", *ratios])
    columns = ["way", "slices/s", "median ms", "90 % within ms", "against Keras", "against bare"]
    return table(columns, rows)


if __name__ == "__main__":
    main()
