"""How many training samples a second the input pipeline delivers, and what it needs for that.

For networks of 64, 128, 256 and 512 pixels, on slices of 512 pixels of the phantom: samples a
second of the pipeline alone, with the augmentation of the shipped demo and without; of decoding the
image files alone; and of the demo's network, which trains on one batch again and again. Then the
time that a training with the shipped settings waits for data, and the peak memory of one pass over
slices and over ten times as many.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.record import arguments, publish, table
from contract.config import Config
from contract.config.loader import load_config
from contract.imaging.intensity_scaling import IntensityScaling
from contract.storage import open_storage

CONFIGS = Path(__file__).parents[1] / "configs"
SIZES = (64, 128, 256, 512)


def main() -> None:
    """Run every measurement in a process of its own and publish the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--measure", nargs="*", help="one measurement, for a process of its own")
    chosen = parser.parse_args()
    if chosen.measure:
        name, folder, *values = chosen.measure
        print(json.dumps(MEASUREMENTS[name](folder, *values)))
        return
    seconds = "0.5" if chosen.quick else "5"
    sizes = SIZES[:1] if chosen.quick else SIZES
    with tempfile.TemporaryDirectory() as folder:
        decoded = measure("decoding", folder, "512", seconds)
        rows = []
        for size in sizes:
            speed = measure("speed", folder, str(size), seconds)
            eaten = measure("network", folder, str(size), seconds)
            rates = (speed["augmented"], speed["plain"], decoded, eaten)
            rows.append([size, *(f"{rate:.0f}" for rate in rates), f"{rates[0] / eaten:.0f}"])
        speeds = table(
            [
                "px",
                "augmented",
                "not augmented",
                "decoding alone",
                "network",
                "augmented / network",
            ],
            rows,
        )
        waits = table(
            ["settings", "ms of a step", "ms waiting for data", "share"],
            [
                [f"`{name}`", *measure("wait", folder, name, seconds)]
                for name in ("demo.toml", "pancreas.toml")
            ],
        )
        counts = ("50", "500") if chosen.quick else ("1000", "10000")
        memory = table(
            ["slices of 128 px", "MB of files", "peak memory above an empty process, MB"],
            [[count, *measure("memory", folder, count)] for count in counts],
        )
    publish("input_pipeline", f"{speeds}\n\n{waits}\n\n{memory}", chosen.write)


def measure(name: str, *values: str) -> Any:
    """The result of a measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.input_pipeline", "--measure", name, *values]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def settings(folder: str, file: str, **values: Any) -> Config:
    """A shipped file with the phantom of 512 pixels, trained on two threads in one process."""
    shared = {"data.source": "phantom", "data.root": None, "data.phantom.size": 512}
    shared |= {"storage.root": folder, "train.num_workers": 1, "train.epochs": 10**4}
    shared |= {"train.lr_schedule": "constant", "train.cpus_per_worker": os.cpu_count() or 2}
    return load_config(CONFIGS / file).with_values(shared | values)


def open_dataset(config: Config, augmented: bool = True) -> Any:
    """The training batches of the phantom."""
    from contract.config import Augment
    from trainer.data import cache, pipeline
    from trainer.data.augmentation import PROBABILITIES
    from trainer.data.dataset_index import intensity_scaling, prepare_dataset

    dataset = prepare_dataset(config.data, config.run.seed, open_storage(config.storage.root))
    scaling = intensity_scaling(dataset, config.data)
    cached = cache.load_split(
        dataset, "train", config.network, config.storage.cache_gb, config.data
    )
    data = config.data
    if not augmented:
        nothing = Augment.model_validate(dict.fromkeys(PROBABILITIES, 0.0))
        data = data.model_copy(update={"augment": nothing})
    rank = pipeline.WorkerRank()
    return pipeline.training_dataset(cached, data, scaling, config.train, config.run.seed, rank, 0)


def rate(step: Callable[[], Any], count: int, seconds: float, warm_up: int = 20) -> float:
    """Samples a second of a step that makes `count` of them."""
    for _ in range(warm_up):
        step()
    done, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        step()
        done += 1
    return done * count / (time.monotonic() - began)


def measure_decoding(folder: str, size: str, seconds: str) -> float:
    """Images and masks a second, read and decoded by one thread per CPU."""
    from contract.imaging.decode import read_image
    from trainer.data.dataset_index import prepare_dataset

    config = settings(folder, "demo.toml", **{"data.phantom.size": int(size)})
    dataset = prepare_dataset(config.data, config.run.seed, open_storage(folder))
    storage, records = open_storage(dataset.root), dataset.select("train")

    def decode(record: Any) -> None:
        read_image(storage, record.image)
        dataset.masks.read(storage, record.mask)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return rate(lambda: list(pool.map(decode, records)), len(records), float(seconds), 1)


def measure_speed(folder: str, size: str, seconds: str) -> dict[str, float]:
    """Samples a second of the pipeline alone."""
    config = settings(folder, "demo.toml", **{"network.image_size": int(size)})
    speeds = {}
    for name, augmented in (("augmented", True), ("plain", False)):
        batches = iter(open_dataset(config, augmented))
        speeds[name] = rate(lambda: next(batches), config.train.batch_size, float(seconds))  # noqa: B023
    return speeds


def measure_network(folder: str, size: str, seconds: str) -> float:
    """Samples a second of training on the same batch."""
    from trainer.training.train_loop import build_compiled_model

    config = settings(folder, "demo.toml", **{"network.image_size": int(size)})
    images, masks = next(iter(open_dataset(config)))
    model = build_compiled_model(config)
    step = lambda: model.train_on_batch(images, masks)  # noqa: E731
    return rate(step, config.train.batch_size, float(seconds), 3)


def measure_wait(folder: str, file: str, seconds: str) -> list[str]:
    """The mean time of a step, and of waiting for its batch, with the shipped settings."""
    from trainer.training.train_loop import build_compiled_model

    config = settings(folder, file)
    batches = iter(open_dataset(config))
    model = build_compiled_model(config)
    for images, masks in islice(batches, 5):
        model.train_on_batch(images, masks)
    steps, waited, began = 0, 0.0, time.monotonic()
    while time.monotonic() - began < 4 * float(seconds):
        asked = time.monotonic()
        images, masks = next(batches)
        waited += time.monotonic() - asked
        model.train_on_batch(images, masks)
        steps += 1
    together = time.monotonic() - began
    times = (f"{1000 * value / steps:.2f}" for value in (together, waited))
    return [*times, f"{waited / together:.1%}"]


def measure_memory(folder: str, count: str) -> list[str]:
    """MB of the files of a split with so many slices, and what one pass over it needs."""
    import numpy as np

    from trainer.data import pipeline
    from trainer.data.cache import CachedSplit, ImageShape, write_slice

    config = settings(folder, "demo.toml")
    split = Path(folder) / f"split-{count}"
    split.mkdir()
    rng = np.random.default_rng(0)
    size = 0
    for index in range(int(count)):
        image = rng.integers(0, 256, (128, 128, 1), np.uint8)
        size += write_slice(split, index, image, (image[..., 0] > 128).astype(np.uint8))
    cached = CachedSplit(split, int(count), ImageShape(128, 128, 1), 1, ())
    rank, train = pipeline.WorkerRank(), config.train
    scaling = IntensityScaling.from_window(0.0, 255.0)

    def read(steps: int) -> float:
        data = pipeline.training_dataset(cached, config.data, scaling, train, 1, rank, 0)
        for _ in islice(data, steps):
            pass
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000

    empty = read(1)
    passed = read(int(count) // train.batch_size)
    return [f"{size / 1e6:.0f}", f"{passed - empty:.0f}"]


MEASUREMENTS: dict[str, Callable[..., Any]] = {
    "decoding": measure_decoding,
    "speed": measure_speed,
    "network": measure_network,
    "wait": measure_wait,
    "memory": measure_memory,
}

if __name__ == "__main__":
    main()
