"""How zooms, shifts and the threshold of the prediction change the Dice over folds.

Of the folder of a `segfleet cross-validate`: every patient is predicted by the network that was not
trained on the patient, with each test-time augmentation and each threshold below. The last column
is the difference of a row's best threshold from the slice alone with the threshold 0.5: the mean of
the differences by patient, and its standard error.
"""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import PAGE, ROOT
from benchmarks.record import arguments, publish, table
from contract import bundle as bundles
from contract.config import Config
from contract.config.loader import load_config
from contract.confusion import class_counts, pooled_counts
from contract.storage import open_storage
from trainer.cross_validation.fold_settings import fold_configs
from trainer.data.dataset_index import Dataset, prepare_dataset
from trainer.evaluation.predicted_volumes import predict_volumes
from trainer.evaluation.prediction_tuning import graph_function
from trainer.evaluation.slice_reader import open_reader
from trainer.export.prediction_settings import load_model
from trainer.export.saved_model import SegmentationModule

VIEWS: Mapping[str, Mapping[str, Any]] = {
    "slice alone": {"zooms": [1.0], "shifts": []},
    "zooms 0.9, 1.1": {"zooms": [0.9, 1.0, 1.1], "shifts": []},
    "zooms 0.8, 1.25": {"zooms": [0.8, 1.0, 1.25], "shifts": []},
    "zooms 0.8, 0.9, 1.1, 1.25": {"zooms": [0.8, 0.9, 1.0, 1.1, 1.25], "shifts": []},
    "shifts of 0.02": {"zooms": [1.0], "shifts": [0.02]},
}
THRESHOLDS = (0.35, 0.4, 0.45, 0.5, 0.55)

DiceByPatient = dict[str, float]


def main() -> None:
    """Print the mean Dice with all views and thresholds."""
    parser = arguments(__doc__)
    parser.add_argument("--data", default=str(ROOT.parent / "shared/data/Cropped-Pancreas"))
    parser.add_argument("--results", required=True, help="STORAGE/cross_validations/NAME")
    chosen = parser.parse_args()
    results = Path(chosen.results)
    config = load_config(results / "config.toml", [f"data.root={chosen.data}"])
    summary = json.loads((results / "cross_validation.json").read_text(encoding="utf-8"))
    views = dict(list(VIEWS.items())[:2]) if chosen.quick else VIEWS
    dice = {(name, each): DiceByPatient() for name in views for each in THRESHOLDS}
    for fold, row in zip(fold_configs(config), summary["folds"], strict=True):
        dataset = prepare_dataset(fold.data, fold.run.seed, open_storage(fold.storage.root))
        for name in views:
            predict = {f"predict.{key}": value for key, value in VIEWS[name].items()}
            by_threshold = measure(f"{row['run']}/bundle", fold.with_values(predict), dataset)
            for threshold, patients in by_threshold.items():
                dice[name, threshold] |= patients
    rows = [format_row(name, dice) for name in views]
    columns = ["views", *map(str, THRESHOLDS), "difference of the best (standard error)"]
    publish("prediction", table(columns, rows), chosen.write, PAGE)


def measure(bundle: str, config: Config, dataset: Dataset) -> dict[float, DiceByPatient]:
    """The Dice of the valid patients with each threshold; config: with the views to predict."""
    folder = bundles.fetch(open_storage(bundle))
    manifest = bundles.read_manifest(open_storage(bundle))
    module = SegmentationModule(load_model(folder, config), config, manifest.intensity_scaling)
    records = dataset.select("valid")
    reader = open_reader(dataset, records, manifest.intensity_scaling.window, manifest.neighbours)
    counts: dict[tuple[float, str], list[Any]] = {}
    with predict_volumes(
        records, reader, graph_function(module), 1, config.predict.batch_size, lambda: None
    ) as volumes:
        for volume in volumes:
            for threshold in THRESHOLDS:
                mask = (volume.probability[..., 0] > threshold).astype(np.uint8)
                pixels = class_counts(mask, volume.y_true, 1)[0]
                counts.setdefault((threshold, volume.patient), []).append(pixels)
    result: dict[float, DiceByPatient] = {threshold: {} for threshold in THRESHOLDS}
    for (threshold, patient), each in counts.items():
        result[threshold][patient] = pooled_counts(each).dice
    return result


def format_row(name: str, dice: Mapping[tuple[str, float], DiceByPatient]) -> list[str]:
    """The cells of some views."""
    means = {each: statistics.mean(dice[name, each].values()) for each in THRESHOLDS}
    best = dice[name, max(means, key=lambda threshold: means[threshold])]
    alone = dice[next(iter(VIEWS)), 0.5]
    differences = [best[patient] - alone[patient] for patient in alone]
    error = statistics.stdev(differences) / len(differences) ** 0.5
    cells = [f"{mean:.3f}" for mean in means.values()]
    return [name, *cells, f"{statistics.mean(differences):+.4f} ({error:.4f})"]


if __name__ == "__main__":
    main()
