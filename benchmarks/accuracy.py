"""Which parts of configs/pancreas.toml raise the Dice of patients that a network never saw.

`segfleet cross-validate` with four folds over the patients of train and valid, for the shipped
settings and for each variant: every patient is evaluated by the network that was not trained on the
patient; the test split is not used. All are without [predict], which was chosen for the shipped
settings. A variant has fewer epochs if its samples cost more multiply-adds, so that all variants
take about the same time. The difference from the shipped settings is by patient, with a 95 %
interval (percentile bootstrap over patients); the variants "seed 1" and "seed 2" show how large it
is by chance.

A variant takes as long as four trainings, and less with smaller --settings, which apply to all
variants. Finished folds are kept in --storage: run the command again to continue.
"""

import csv
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.record import arguments, publish, table
from contract.config import Config, UNet
from contract.config.loader import load_config, to_toml
from trainer.evaluation.estimates import estimate
from trainer.planning.step_time import NetworkShape

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "accuracy.md"
# [predict] was chosen for the shipped settings and would favour them.
BASE = [
    "data.folds=4",
    "train.preview_images=0",
    "predict.zooms=[1.0]",
    "predict.threshold=0.5",
]
SHIPPED = "shipped settings without [predict]"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    SHIPPED: {},
    "whole slices, as many pixels per mm": {
        "data.crop_rows": [0.0, 1.0],
        "data.crop_columns": [0.0, 1.0],
        "network.image_size": 176,
    },
    "96 x 96 px": {"network.image_size": 96},
    "four levels": {"network.num_layers": 4},
    "no elastic deformation": {"data.augment.elastic_probability": 0.0},
    "weaker changes of intensity": {
        "data.augment.brightness": 0.2,
        "data.augment.gamma": 1.5,
    },
    "mirrored left to right": {"data.augment.flip_horizontal": 0.5},
    "no deep supervision": {"network.deep_supervision": False},
    "average of the weights": {"train.ema_decay": 0.999},
    "cosine": {"train.lr_schedule": "cosine"},
    "one cycle": {"train.lr_schedule": "one_cycle", "train.warmup_epochs": 0.0},
    "label smoothing": {"train.label_smoothing": 0.05},
    "z-score of the foreground": {"data.normalize": "foreground"},
    "no rotation": {"data.augment.rotation": 0.0},
    "no zoom": {"data.augment.scale": 1.0},
    "half of the filters": {"network.base_filters": 8},
    "twice the filters": {"network.base_filters": 32, "network.max_filters": 512},
    "no dropout": {"network.dropout_rate": 0.0},
    "seed 1": {"data.seed": 0, "run.seed": 1},
    "seed 2": {"data.seed": 0, "run.seed": 2},
}


class Result(NamedTuple):
    """A cross-validation: its epochs at most, and the Dice of each patient."""

    epochs: int
    patients: Mapping[str, float]


def main() -> None:
    """Cross-validate the variants, and print how they differ from the shipped settings."""
    parser = arguments(__doc__)
    parser.add_argument("--data", default=str(ROOT.parent / "shared/data/Cropped-Pancreas"))
    parser.add_argument("--storage", default="segfleet-data/accuracy")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--settings", nargs="*", default=[], metavar="SECTION.KEY=VALUE")
    chosen = parser.parse_args()
    base = load_base([f"data.root={chosen.data}", *chosen.settings])
    # Tiny runs would be continued by the next real ones.
    storage = f"{chosen.storage}-quick" if chosen.quick else chosen.storage
    results = {
        name: cross_validate(create_settings(base, name, chosen.quick), storage, name)
        for name in dict.fromkeys([SHIPPED, *chosen.variants])
    }
    rows = [format_row(name, each, results[SHIPPED]) for name, each in results.items()]
    columns = ["settings", "epochs", "mean Dice", "95 % interval", "difference"]
    same = f"`{' '.join(chosen.settings)}` in all rows.\n\n" if chosen.settings else ""
    publish("accuracy", same + table(columns, rows), chosen.write, PAGE)


def load_base(overrides: Sequence[str]) -> Config:
    """The settings that the variants change; overrides: as on the command line."""
    return load_config(ROOT / "configs" / "pancreas.toml", [*BASE, *overrides])


def create_settings(base: Config, name: str, quick: bool) -> Config:
    """The settings of a variant, with epochs for the multiply-adds of the shipped ones."""
    config = base.with_values(VARIANTS[name])
    epochs = round(base.train.epochs * multiply_adds(base) / multiply_adds(config))
    return config.with_values({"train.epochs": 1 if quick else epochs})


def multiply_adds(config: Config) -> int:
    """Those of one sample."""
    network = config.network
    assert isinstance(network, UNet)
    shape = NetworkShape(
        *network.image_shape,
        network.num_layers,
        network.base_filters,
        network.max_filters,
    )
    return shape.multiply_adds(config.input_channels, len(config.data.segmentation_classes))


def cross_validate(config: Config, storage: str, name: str) -> Result:
    """The result of a variant; folds that are finished in the storage are not trained again."""
    run = name.translate(str.maketrans({" ": "-", ",": None, "[": None, "]": None}))
    folder = Path(storage).absolute()
    settings = config.with_values({"storage.root": str(folder), "run.name": run})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run}.toml"
    path.write_text(to_toml(settings), encoding="utf-8")
    command = ["-m", "trainer", "cross-validate", str(path), "--no-ensemble"]
    subprocess.run([sys.executable, *command], check=True)
    output = folder / "cross_validations" / run
    with (output / "patients.csv").open(encoding="utf-8") as file:
        patients = {row["patient"]: float(row["dice"]) for row in csv.DictReader(file)}
    return Result(config.train.epochs, patients)


def format_row(name: str, result: Result, shipped: Result) -> list[str]:
    """The cells of a variant."""
    mean, low, high = mean_with_interval(list(result.patients.values()))
    cells = [name, str(result.epochs), f"{mean:.3f}", f"{low:.3f} to {high:.3f}"]
    if name == SHIPPED:
        return [*cells, ""]
    differences = [dice - shipped.patients[name] for name, dice in result.patients.items()]
    mean, low, high = mean_with_interval(differences)
    return [*cells, f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"]


def mean_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean over patients, and the ends of its interval."""
    result = estimate(values, 0)
    assert result.interval is not None
    assert result.summary.mean is not None
    return result.summary.mean, *result.interval


if __name__ == "__main__":
    main()
