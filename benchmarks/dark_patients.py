"""Whether patients whose foreground is dark are segmented worse.

Of the folder of a `segfleet cross-validate`: the Dice of each patient, by the network that was not
trained on the patient, next to the mean intensity of the patient's foreground. Patients are divided
into four groups of the same size, the darkest first; Spearman's rank correlation is over all.
"""

import csv
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from scipy.stats import spearmanr

from benchmarks.accuracy import PAGE, ROOT
from benchmarks.record import arguments, publish, table
from contract.config.loader import load_config
from contract.imaging.decode import read_image
from contract.storage import open_storage
from trainer.data.dataset_index import Dataset, prepare_dataset

GROUPS = 4


def main() -> None:
    """Print the Dice of each group and the correlation."""
    parser = arguments(__doc__)
    parser.add_argument("--data", default=str(ROOT.parent / "shared/data/Cropped-Pancreas"))
    parser.add_argument("--results", required=True, help="STORAGE/cross_validations/NAME")
    chosen = parser.parse_args()
    results = Path(chosen.results)
    with (results / "patients.csv").open(encoding="utf-8") as file:
        dice = {row["patient"]: float(row["dice"]) for row in csv.DictReader(file)}
    config = load_config(results / "config.toml", [f"data.root={chosen.data}"])
    storage = open_storage(config.storage.root)
    dataset = prepare_dataset(config.data, config.run.seed, storage)
    intensity = foreground_intensities(dataset)
    patients = sorted(dice, key=lambda patient: intensity[patient])
    rows = []
    for group in range(GROUPS):
        start, end = (edge * len(patients) // GROUPS for edge in (group, group + 1))
        members = patients[start:end]
        lowest, highest = intensity[members[0]], intensity[members[-1]]
        mean = statistics.mean(dice[patient] for patient in members)
        rows.append([len(members), f"{lowest:.0f} to {highest:.0f}", f"{mean:.3f}"])
    rank, probability = spearmanr(
        [intensity[patient] for patient in patients], [dice[patient] for patient in patients]
    )
    text = table(["patients", "mean intensity of the foreground", "Dice"], rows)
    text += f"\n\nSpearman's rank correlation: {rank:.2f}, p = {probability:.3f}."
    publish("dark_patients", text, chosen.write, PAGE)


def foreground_intensities(dataset: Dataset) -> Mapping[str, float]:
    """The mean intensity of the foreground, by patient: the mean of the patient's slices."""
    storage = open_storage(dataset.root)
    means: dict[str, list[float]] = defaultdict(list)
    for record in dataset.slices:
        mask = dataset.masks.read(storage, record.mask)
        if mask.any():
            image = read_image(storage, record.image)
            means[record.patient].append(float(image[mask > 0].mean()))
    return {patient: statistics.mean(each) for patient, each in means.items()}


if __name__ == "__main__":
    main()
