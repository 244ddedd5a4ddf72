"""What Ray and the service cost in training, and what a second worker gains on the same CPUs.

Samples a second over the finished epochs but the first (which compiles), validation included, of:
a plain tf_keras fit on arrays in memory; `segfleet train` with one worker of all CPUs; and with two
workers of half the CPUs each. All on the same phantom, network, batch size and augmentation off.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import arguments, command, publish, table
from contract.config import Augment, Config
from contract.config.loader import load_config, to_toml
from contract.storage import open_storage


def main() -> None:
    """Measure the three in turn and publish samples a second and ratios."""
    parser = arguments(__doc__)
    chosen = parser.parse_args()
    rows = [row for size in SIZES for row in measure(size, chosen.quick)]
    text = table(["slices", "way", "samples/s", "against plain fit"], rows)
    publish("training_overhead", text, chosen.write)


# The settings that differ from those of the demo, by the size of the network's input.
SIZES = {
    64: {"data.phantom.train_patients": 24},
    256: {"network.image_size": 256, "data.phantom.size": 256, "data.phantom.train_patients": 6},
}


def measure(size: int, quick: bool) -> list[list[str]]:
    """A row for each way at one size."""
    with tempfile.TemporaryDirectory() as folder:
        config = settings(folder, quick).with_values(SIZES[size])
        cpus = max(2, (os.cpu_count() or 2) // 2 * 2)
        alone = config.with_values({"train.num_workers": 1, "train.cpus_per_worker": cpus})
        pair = config.with_values({"train.num_workers": 2, "train.cpus_per_worker": cpus // 2})
        speeds = {
            f"plain `tf_keras` fit, {cpus} threads": plain(alone, folder),
            f"`segfleet train`, 1 worker x {cpus} CPUs": service(alone, folder, "one"),
            f"`segfleet train`, 2 workers x {cpus // 2} CPUs": service(pair, folder, "two"),
        }
    base = next(iter(speeds.values()))
    return [[f"{size} px", name, f"{v:.1f}", f"{v / base:.2f}"] for name, v in speeds.items()]


def settings(folder: str, quick: bool) -> Config:
    """The network of the demo on its phantom, without augmentation, early stop or pictures."""
    demo = Path(__file__).parents[1] / "configs" / "demo.toml"
    values = {f"data.augment.{name}": 0.0 for name in Augment.model_fields if "probability" in name}
    values |= {"train.preview_images": 0, "storage.root": folder}
    values |= {"train.epochs": 3 if quick else 6, "train.precision": "float32"}
    values |= {"train.lr_schedule": "constant"}
    return load_config(demo).with_values(values)


def plain(config: Config, folder: str) -> float:
    """Samples a second of a fit on the same slices as arrays in memory."""
    samples = save_arrays(config, folder)
    path = Path(folder) / "plain.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    result = subprocess.run(
        command("plain_fit", path, folder), check=True, capture_output=True, text=True
    )
    return samples / statistics.median(json.loads(result.stdout.splitlines()[-1])[1:])


def save_arrays(config: Config, folder: str) -> int:
    """Write the prepared slices as .npy files; how many samples an epoch trains on."""
    import numpy as np

    from trainer.data import cache
    from trainer.data.dataset_index import intensity_scaling, prepare_dataset
    from trainer.data.pipeline import load_sample
    from trainer.data.preprocessing import standardize

    dataset = prepare_dataset(config.data, config.run.seed, open_storage(folder))
    scaling, count = intensity_scaling(dataset, config.data), 0
    for split in ("train", "valid"):
        cached = cache.load_split(dataset, split, config.network, config.storage.cache_gb)
        pairs = [load_sample(cached, scaling, index) for index in range(cached.num_samples)]
        if split == "train":
            count = len(pairs) // config.train.batch_size * config.train.batch_size
            pairs = pairs[:count]
        np.save(
            f"{folder}/{split}_x.npy", standardize(np.array([image for image, _ in pairs]), scaling)
        )
        masks = np.array([mask[..., None] for _, mask in pairs], np.float32)
        np.save(f"{folder}/{split}_y.npy", masks)
    return count


def service(config: Config, folder: str, name: str) -> float:
    """Samples a second of `segfleet train`, from the seconds in train_metrics.csv."""
    path = Path(folder) / f"{name}.toml"
    path.write_text(to_toml(config.with_values({"run.name": name})), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "trainer", "train", str(path)], check=True)
    lines = (Path(folder) / "runs" / name / "train_metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("seconds")
    seconds = [float(line.split(",")[column]) for line in lines[2:]]
    samples = config.data.phantom.train_patients * config.data.phantom.slices
    return samples // config.train.batch_size * config.train.batch_size / statistics.median(seconds)


if __name__ == "__main__":
    main()
