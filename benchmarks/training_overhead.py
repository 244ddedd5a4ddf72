"""What Ray and the service cost in training, and what a second worker gains on the same CPUs.

Samples a second over the finished epochs but the first (which compiles), validation included, of:
a plain tf_keras fit on arrays in memory; `segfleet train` with one worker of all CPUs; and with two
workers of half the CPUs each. All on the same phantom, network, batch size and augmentation off,
and in turn, several times, because the speed of a shared machine changes within minutes.

The last rows are of the network and batch of the experiment that segfleet grew from, with the
precision that train.precision = "auto" selects, and one worker: with two, a step of its 125 M
parameters took minutes (docs/lab-notes.md).
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.record import arguments, command, publish, table
from contract.config import Augment, Config
from contract.config.loader import load_config, to_toml
from contract.storage import open_storage
from contract.tensorflow_variables import TENSORFLOW_VARIABLES


def main() -> None:
    """Measure all cases and publish samples a second and ratios."""
    parser = arguments(__doc__)
    chosen = parser.parse_args()
    rows = [row for case in CASES for row in measure(case, chosen.quick)]
    text = table(["slices", "way", "samples/s", "against plain fit"], rows)
    publish("training_overhead", text, chosen.write)


# The network of the experiment that segfleet grew from.
PUBLISHED: Mapping[str, Any] = {
    "image_size": 512,
    "image_channels": 3,
    "base_filters": 16,
    "base_kernels": 9,
    "num_layers": 8,
    "dilation": 3,
    "dropout_rate": 0.05,
}
# The settings that differ from those of the demo.
_PUBLISHED = "512 px, 125 M parameters"
CASES: Mapping[str, Mapping[str, Any]] = {
    "64 px": {"data.phantom.train_patients": 24},
    "256 px": {
        "network.image_size": 256,
        "data.phantom.size": 256,
        "data.phantom.train_patients": 6,
    },
    _PUBLISHED: {
        **{f"network.{name}": value for name, value in PUBLISHED.items()},
        "data.phantom.size": 512,
        "data.phantom.train_patients": 1,
        "data.phantom.valid_patients": 1,
        "data.phantom.slices": 8,
        "train.batch_size": 2,
        "train.epochs": 3,
        "train.precision": "auto",
    },
}
_ROUNDS = 2


def measure(case: str, quick: bool) -> list[list[str]]:
    """A row for each way of one case."""
    seconds: dict[str, list[float]] = {}
    samples = 0
    for _ in range(1 if quick or case == _PUBLISHED else _ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            config = settings(folder, quick).with_values(CASES[case])
            samples = config.data.phantom.train_patients * config.data.phantom.slices
            samples -= samples % config.train.batch_size
            for way, epochs in measure_ways(config, folder, case != _PUBLISHED).items():
                seconds.setdefault(way, []).extend(epochs)
    speeds = {way: samples / statistics.median(each) for way, each in seconds.items()}
    base = next(iter(speeds.values()))
    rows = [[case, way, f"{speed:.3g}", f"{speed / base:.2f}"] for way, speed in speeds.items()]
    print(json.dumps(rows), flush=True)  # kept if a later case fails
    return rows


def measure_ways(config: Config, folder: str, with_pair: bool) -> dict[str, list[float]]:
    """Seconds of the epochs of each way; with_pair: also of two workers."""
    cpus = max(2, (os.cpu_count() or 2) // 2 * 2)
    alone = config.with_values({"train.num_workers": 1, "train.cpus_per_worker": cpus})
    pair = config.with_values({"train.num_workers": 2, "train.cpus_per_worker": cpus // 2})
    ways = {
        f"plain `tf_keras` fit, {cpus} threads": plain(alone, folder),
        "the same, TensorFlow's own defaults": plain(alone, folder, with_defaults=True),
        f"`segfleet train`, 1 worker x {cpus} CPUs": service(alone, folder, "one"),
    }
    if with_pair:
        ways[f"`segfleet train`, 2 workers x {cpus // 2} CPUs"] = service(pair, folder, "two")
    return ways


def settings(folder: str, quick: bool) -> Config:
    """The network of the demo on its phantom, without augmentation, early stop or pictures."""
    demo = Path(__file__).parents[1] / "configs" / "demo.toml"
    values = {f"data.augment.{name}": 0.0 for name in Augment.model_fields if "probability" in name}
    values |= {"train.preview_images": 0, "storage.root": folder}
    values |= {"train.epochs": 3 if quick else 6, "train.precision": "float32"}
    values |= {"train.lr_schedule": "constant"}
    return load_config(demo).with_values(values)


def plain(config: Config, folder: str, with_defaults: bool = False) -> list[float]:
    """Seconds of the epochs of a fit on the same slices as arrays in memory.

    with_defaults: Without the environment variables that segfleet sets for TensorFlow.
    """
    save_arrays(config, folder)
    path = Path(folder) / "plain.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    result = subprocess.run(
        command("plain_fit", path, folder),
        check=True,
        capture_output=True,
        text=True,
        env={
            n: v
            for n, v in os.environ.items()
            if not with_defaults or n not in TENSORFLOW_VARIABLES
        },
    )
    return json.loads(result.stdout.splitlines()[-1])[1:]


def save_arrays(config: Config, folder: str) -> None:
    """Write the prepared slices as .npy files, of the training slices only whole batches."""
    import numpy as np

    from trainer.data import cache
    from trainer.data.dataset_index import intensity_scaling, prepare_dataset
    from trainer.data.pipeline import load_sample
    from trainer.data.preprocessing import standardize

    dataset = prepare_dataset(config.data, config.run.seed, open_storage(folder))
    scaling = intensity_scaling(dataset, config.data)
    for split in ("train", "valid"):
        cached = cache.load_split(
            dataset, split, config.network, config.storage.cache_gb, config.data
        )
        pairs = [load_sample(cached, scaling, index) for index in range(cached.num_samples)]
        if split == "train":
            pairs = pairs[: len(pairs) // config.train.batch_size * config.train.batch_size]
        np.save(
            f"{folder}/{split}_x.npy", standardize(np.array([image for image, _ in pairs]), scaling)
        )
        masks = np.array([mask[..., None] for _, mask in pairs], np.float32)
        np.save(f"{folder}/{split}_y.npy", masks)


def service(config: Config, folder: str, name: str) -> list[float]:
    """Seconds of the epochs of `segfleet train`, from train_metrics.csv."""
    path = Path(folder) / f"{name}.toml"
    path.write_text(to_toml(config.with_values({"run.name": name})), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "trainer", "train", str(path)], check=True)
    return epoch_seconds(folder, name)


def epoch_seconds(folder: str, name: str) -> list[float]:
    """Seconds of the epochs of a run but the first, which compiles, validation included."""
    lines = (Path(folder) / "runs" / name / "train_metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("seconds")
    return [float(line.split(",")[column]) for line in lines[2:]]


if __name__ == "__main__":
    main()
