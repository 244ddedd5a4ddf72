"""Trains one network for some seconds, evaluates it, and times its bundle.

Arguments: the settings, the seconds of training, and the split to evaluate. Prints the results as
JSON.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

import trainer
from contract.config import Config
from contract.config.loader import load_config
from contract.imaging.decode import decode_image
from contract.storage import open_storage
from inference.engines import OpenVinoEngine
from trainer.components.network_summary import format_count, measure_network
from trainer.data.dataset_index import SPLITS, Dataset
from trainer.networks.registry import build_network
from trainer.training import run_store
from trainer.training.finalize import finalize_run
from trainer.training.train_loop import WorkerContext, train

_CALIBRATION_STEPS = 4
_EPOCH_STEPS = 60
_SERVED = 24


def main() -> None:
    """Train, evaluate and serve."""
    config, seconds, split = load_config(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    assert split in SPLITS
    dataset = trainer.prepare(config)
    epochs, steps = choose_length(config, dataset, seconds)
    values = {"train.epochs": epochs, "train.steps_per_epoch": steps}
    config = config.with_values(values)
    run = run_store.run_storage(config)
    run_store.create_run(run, config, dataset)
    history = train(config, dataset, run, WorkerContext())
    finalize_run(run, config, history, None)
    bundle = f"{run.url}/bundle"
    samples = epochs * steps * config.train.batch_size
    model = build_network(config.network, 1, 1).inference_model
    size = measure_network(model)
    result = {
        "parameters": format_count(size.parameters),
        "multiply_adds": format_count(size.multiply_adds),
        "samples": samples,
        "trained": samples / sum(epoch["seconds"] for epoch in history),
        "served": time_bundle(Path(bundle), dataset),
        "dice": trainer.evaluate(bundle, split=split).summary_of("dice").mean,
    }
    sys.stdout.write(json.dumps(result) + "\n")


def choose_length(config: Config, dataset: Dataset, seconds: float) -> tuple[int, int]:
    """Epochs and steps of an epoch that take some seconds together, from a short training."""
    short = config.with_values(
        {
            "run.name": "calibration",
            "train.epochs": 2,
            "train.steps_per_epoch": _CALIBRATION_STEPS,
            # All validation slices would take longer than the training of a slow network.
            "train.validation_steps": 1,
        }
    )
    run = run_store.run_storage(short)
    run_store.create_run(run, short, dataset)
    first, second = train(short, dataset, run, WorkerContext())
    # A validation step takes about a third of a training step.
    validation = len(dataset.select("valid")) / config.train.batch_size / 3
    step = second["seconds"] / (_CALIBRATION_STEPS + 1 / 3)
    start = first["seconds"] - second["seconds"]
    steps = max(1, int((seconds - start) / step))
    if steps < _EPOCH_STEPS:
        return 1, max(1, int(steps - validation))
    return max(1, int(steps / (_EPOCH_STEPS + validation))), _EPOCH_STEPS


def time_bundle(folder: Path, dataset: Dataset) -> float:
    """Slices of the dataset that OpenVINO segments a second, on two threads."""
    storage = open_storage(dataset.root)
    records = dataset.select("valid")[:_SERVED]
    slices = np.stack([decode_image(storage.read(each.image), each.image) for each in records])
    engine = OpenVinoEngine(folder, 2)
    engine.infer(slices[:2])
    started = time.monotonic()
    engine.infer(slices)
    return len(slices) / (time.monotonic() - started)


if __name__ == "__main__":
    main()
