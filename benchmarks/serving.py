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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from benchmarks.record import arguments, command, publish, table
from contract.config import Config
from contract.config.loader import load_config, to_toml
from contract.host_info import cpu_count
from contract.registry import Registry
from contract.storage import open_storage

IN_FLIGHT = (1, 8, 32)
KERAS_WAY = "Keras `model.predict`"
BARE_WAY = "bare loop, OpenVINO"
LOOPS = {
    KERAS_WAY: ("keras_loop",),
    "bare loop, TensorFlow": ("engine_loop", "TensorFlow"),
    BARE_WAY: ("engine_loop", "OpenVINO"),
}
"""The program of each loop, and what it needs besides the settings, the folder and the threads."""


@dataclass(frozen=True)
class Round:
    """One turn of a way."""

    taken: list[float]
    """Seconds of every slice."""
    speed: float
    """Slices a second."""


def main() -> None:
    """Measure all ways round by round and publish speeds, latencies and ratios."""
    parser = arguments(__doc__)
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs of the replica")
    chosen = parser.parse_args()
    rounds, seconds = (1, 0.5) if chosen.quick else (3, 5.0)
    measured: dict[str, list[Round]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path, config = settings(Path(folder), chosen.gpus)
        subprocess.run(command("serving_files", path, folder), check=True)
        promote_bundle(config, folder)
        loops = {
            name: stack.enter_context(loop(program, path, folder, cpu_count(), *words))
            for name, (program, *words) in LOOPS.items()
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


def settings(folder: Path, gpus: float) -> tuple[Path, Config]:
    """The shipped network and service, with all CPUs and some GPUs for one replica."""
    shipped = load_config(Path(__file__).parents[1] / "configs" / "pancreas.toml")
    config = shipped.with_values(
        {
            "storage.root": str(folder),
            # One prediction for each slice, as in the loops that it is compared with.
            "predict.zooms": [1.0],
            "serve.port": free_port(),
            "serve.cpus_per_replica": cpu_count(),
            "serve.gpus_per_replica": gpus,
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
def loop(program: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A process that measures a way whenever it is asked, ready when this returns."""
    with subprocess.Popen(
        command(program, *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the loop did not start"
        try:
            yield process
        finally:
            process.terminate()


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
