"""All networks on the same slices: size, speed, and Dice after the same minutes of training.

Each network with its default settings at 96 x 96 px, configs/pancreas.toml otherwise, on the folder
of --data (train|valid|test x images|masks, split by patient): how many slices a second it trains on
two threads, validation included; how many slices of the folder a second OpenVINO segments; and the
Dice by patient of the validation patients after --minutes of training, first epoch included. The
number of epochs is chosen from the time of a short training, so that the learning rate falls to 0
at the end. The table is in docs/networks.md.
"""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import arguments, command, publish, table
from contract.config import NETWORKS, network_name
from contract.config.loader import load_config, to_toml

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "networks.md"
# That of configs/pancreas.toml is too high for transformers.
_LEARNING_RATES = {"swin_unet": 5e-4, "trans_unet": 5e-4}


def main() -> None:
    """Train, measure and evaluate each network in a process of its own."""
    parser = arguments(__doc__)
    parser.add_argument("--data", default=str(ROOT.parent / "shared/data/Cropped-Pancreas"))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--networks", nargs="*", default=[network_name(each) for each in NETWORKS])
    chosen = parser.parse_args()
    seconds = 5.0 if chosen.quick else 60 * chosen.minutes
    rows = [measure(name, chosen.data, seconds) for name in chosen.networks]
    columns = ["network", "parameters", "multiply-adds", "learning rate", "slices trained"]
    columns += ["trained, slices/s", "served, slices/s", "Dice by patient"]
    note = f"{seconds / 60:g} minutes of training each, 96 x 96 px, two threads."
    publish("networks", f"{note}\n\n{table(columns, rows)}", chosen.write, PAGE)


def measure(name: str, data: str, seconds: float) -> list[Any]:
    """The row of one network."""
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(ROOT / "configs" / "pancreas.toml", [f"data.root={data}"])
        rate = _LEARNING_RATES.get(name, config.train.learning_rate)
        values = {
            "storage.root": folder,
            # What was chosen for one of the networks would favour it.
            "predict.zooms": [1.0],
            "predict.threshold": 0.5,
            "network.name": name,
            "train.learning_rate": rate,
            "train.num_workers": 1,
            "train.cpus_per_worker": 2,
            "train.preview_images": 0,
            # The search space of configs/pancreas.toml has settings of its own network.
            "sweep.space": {},
        }
        config = config.with_values(values)
        defaults = type(config.network).model_validate({}).model_dump(mode="json") | {
            "image_size": 96
        }
        config = config.with_values({f"network.{key}": v for key, v in defaults.items()})
        path = Path(folder) / "network.toml"
        path.write_text(to_toml(config), encoding="utf-8")
        done = subprocess.run(
            command("network_trial", path, seconds, "valid"),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    result = json.loads(done.stdout.splitlines()[-1])
    print(name, json.dumps(result), flush=True)  # kept if a later network fails
    return [
        f"`{name}`",
        result["parameters"],
        result["multiply_adds"],
        f"{rate:g}",
        result["samples"],
        f"{result['trained']:.3g}",
        f"{result['served']:.3g}",
        f"{result['dice']:.3f}",
    ]


if __name__ == "__main__":
    main()
