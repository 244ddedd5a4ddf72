"""What a sweep costs beyond training, and how soon it finds what a plain search finds.

The plain search is a loop in one process that has TensorFlow imported once: the same trials (same
seed, same draws), one after another on all CPUs, each in a network built for it and trained to its
last epoch. The sweep is
`tuning.sweep.run` as `segfleet sweep` calls it, from a cold start, on the same CPUs: one a
trial, with early stopping. "The same score" is the plain search's best less 0.01, as sums over
other numbers of threads differ. When a plain search meets a good trial is luck: its seconds are the
mean over all orders of its trials. Those of the sweep are of the one order it had.
"""

import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.record import arguments, command, publish, table
from contract.config import Config
from contract.config.loader import load_config, to_toml
from tuning import sweep
from tuning.trial_store import Trial, read_trials, training_seconds

GAPS = (0.05, 0.02, 0.01, 0.005, 0.002)
"""How far below the best score of the plain search."""
QUICK = {
    "sweep.num_samples": 4,
    "train.epochs": 3,
    "train.steps_per_epoch": 3,
    "sweep.grace_period": 1,
    "network.base_filters": 4,
}
# As many of the demo's epochs as it takes until the scores stand.
FULL = {"sweep.num_samples": 16, "train.epochs": 27}
SPACE = {
    "train.learning_rate": {"loguniform": [1e-4, 3e-2]},
    "network.base_kernels": {"choice": [3, 5]},
    "network.num_layers": {"choice": [2, 3, 4]},
}


def main() -> None:
    """Measure both searches in turn and publish the two tables."""
    parser = arguments(__doc__)
    parser.add_argument("--config", type=Path, help="settings and space of your own")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = settings(chosen.config, folder, chosen.quick)
        monitor = config.train.monitor
        plain_epochs, plain_total = plain(config, Path(folder))
        trials, swept_epochs, swept_total = swept(config)
    best, best_swept = (max(row[monitor] for row in rows) for rows in (plain_epochs, swept_epochs))
    head = [monitor, "plain search, mean of all orders", "`segfleet sweep`", "times sooner"]
    rows = []
    for gap in GAPS:
        goal = best - gap
        seconds, sooner = (
            expected(plain_epochs, goal, monitor),
            reached(swept_epochs, goal, monitor),
        )
        rows.append([f"{goal:.3f} (best - {gap})", *compared(seconds, sooner)])
    rows.append(["all trials over", *compared(plain_total, swept_total)])
    said = (
        f"{config.sweep.num_samples} trials of at most {config.train.epochs} epochs; in seconds. "
        f"Plain search: best {best:.4f} after {len(plain_epochs)} epochs. "
        f"Sweep: best {best_swept:.4f} after {len(swept_epochs)}."
    )
    text = "\n\n".join([said, table(head, rows), outside(trials, config)])
    publish("sweep", text, chosen.write)


def settings(path: Path | None, folder: str, quick: bool) -> Config:
    """The shipped demo with a space of its own, or the settings of a file; one worker a trial."""
    values: dict[str, Any] = {
        "storage.root": folder,
        "sweep.num_workers": 1,
        "train.patience": None,
    }
    if path is None:
        path = Path(__file__).parents[1] / "configs" / "demo.toml"
        values |= {"sweep.space": SPACE, **(QUICK if quick else FULL)}
    # The plain search draws no pictures of its trials either.
    return load_config(path).with_values({**values, "train.preview_images": 0})


def plain(config: Config, folder: Path) -> tuple[list[dict[str, Any]], float]:
    """Every epoch of the plain search, "at" in seconds from its start, and its seconds in all."""
    cpus = os.cpu_count() or 1
    path = folder / "plain.toml"
    alone = config.with_values({"run.name": "plain", "train.cpus_per_worker": cpus})
    path.write_text(to_toml(alone), encoding="utf-8")
    result = subprocess.run(
        command("sequential_search", path), check=True, capture_output=True, text=True
    )
    lines = [line.split(" ", 1) for line in result.stdout.splitlines()]
    facts = [(word, json.loads(rest)) for word, rest in lines if word in ("EPOCH", "END")]
    epochs = [
        {**fact["metrics"], "time_s": fact["time_s"], "trial": fact["trial"]}
        for word, fact in facts
        if word == "EPOCH"
    ]
    return epochs, facts[-1][1]["time_s"]


def swept(config: Config) -> tuple[list[Trial], list[dict[str, Any]], float]:
    """The sweep's trials, every epoch, "at" in seconds from its start, and its seconds in all."""
    one_each = config.with_values({"train.cpus_per_worker": 1})
    began = time.monotonic()
    late: list[float] = []

    def on_progress(done: int, total: int | None, note: str) -> None:
        # The sweep's own clock starts a little later than this one.
        if not late and (rows := list(epochs_of(read_trials(sweep.sweep_storage(one_each))))):
            late.append(time.monotonic() - began - max(row["time_s"] for row in rows))

    result = sweep.run_sweep(one_each, on_progress)
    total = time.monotonic() - began
    epochs = [{**row, "time_s": row["time_s"] + late[0]} for row in epochs_of(result.trials)]
    return list(result.trials), sorted(epochs, key=lambda row: row["time_s"]), total


def epochs_of(trials: list[Trial] | tuple[Trial, ...]) -> Iterator[dict[str, Any]]:
    """Every epoch of every trial."""
    return itertools.chain.from_iterable(trial.history for trial in trials)


def reached(epochs: list[dict[str, Any]], goal: float, monitor: str) -> float | None:
    """Seconds until an epoch has the score; None where none has."""
    return next((row["time_s"] for row in epochs if row[monitor] >= goal), None)


def expected(epochs: list[dict[str, Any]], goal: float, monitor: str) -> float:
    """Mean seconds until the score over all orders of the plain search's trials.

    Of k trials that reach it each is the first as often, and any other trial comes before all k in
    1 of k + 1 orders.
    """
    good, others, began = [], [], 0.0
    for _, group in itertools.groupby(epochs, key=lambda row: row["trial"]):
        rows = list(group)
        seconds = reached(rows, goal, monitor)
        others.append(rows[-1]["time_s"] - began) if seconds is None else good.append(
            seconds - began
        )
        began = rows[-1]["time_s"]
    return sum(good) / len(good) + sum(others) / (len(good) + 1)


def compared(sequential_s: float, sooner: float | None) -> list[str]:
    """Two numbers of seconds and their ratio, as the table shows them."""
    if sooner is None:
        return [f"{sequential_s:.0f}", "never", "-"]
    return [f"{sequential_s:.0f}", f"{sooner:.0f}", f"{sequential_s / sooner:.1f}"]


def outside(trials: list[Trial], config: Config) -> str:
    """Seconds a trial spends not training: one that began in a new process, and any other.

    A trial that went on after a stop was started twice.
    """
    # Started first, before any process was there to be used again.
    order = sorted((trial for trial in trials if trial.history), key=lambda trial: trial.started)
    slots = config.sweep.max_concurrent_trials or os.cpu_count() or 1
    rows = []
    for name, group in (("new process", order[:slots]), ("used process", order[slots:])):
        costs = [
            training_seconds(trial) - sum(row["seconds"] for row in trial.history)
            for trial in group
        ]
        epochs = sum(len(trial.history) for trial in group)
        if costs:
            mean = sum(costs) / len(costs)
            rows.append([name, str(len(costs)), f"{mean:.1f}", f"{epochs / len(costs):.1f}"])
    return table(["trial in a", "trials", "seconds outside training", "epochs a trial"], rows)


if __name__ == "__main__":
    main()
