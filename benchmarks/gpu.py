"""A machine with a GPU, in less than 8 minutes: training, input pipeline, service, one recipe.

    steps     slices/s of training at 512 px on one batch, two networks, in float32, TF32 and
              bfloat16, with XLA and without; GPU memory
    pipeline  augmentation on the CPUs and on the device; how long a training step waits for data
    workers   two workers of MultiWorkerMirroredStrategy with a GPU each, if there are two
    service   slices/s and latency, bare and through HTTP
    recipe    configs/pancreas-gpu.toml for --recipe-minutes on the folder of --data, and its Dice
              by patient of the test split; left out without such a folder

Each part is a process of its own with a limit of time; what it has measured before the limit is
kept. Without a GPU everything runs on the CPUs. The table is in docs/gpu.md.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import training_overhead
from benchmarks.record import arguments, command, publish, table
from contract.config.loader import load_config, to_toml
from contract.host_info import gpu_names

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gpu.md"
PARTS = ("steps", "pipeline", "workers", "service", "recipe")
_SECONDS = 470.0
"""The limit of all parts together."""


def main() -> None:
    """Run the parts one after the other and publish their tables."""
    parser = arguments(__doc__)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--data", default=str(ROOT.parent / "shared/data/Cropped-Pancreas"))
    parser.add_argument("--recipe-minutes", type=float, default=4.0)
    chosen = parser.parse_args()
    recipe_seconds = 2.0 if chosen.quick else 60 * chosen.recipe_minutes
    size = "quick" if chosen.quick else "full"
    measurements: dict[str, Callable[[float], str]] = {
        "recipe": lambda limit: recipe(chosen.data, recipe_seconds, limit),
        "pipeline": lambda limit: pipeline(size, limit),
        "service": lambda limit: service(chosen.quick, limit),
        "workers": lambda limit: workers(chosen.quick, limit),
        # The most cases: last, so that they get the time that is left.
        "steps": lambda limit: steps(size, limit),
    }
    end = time.monotonic() + _SECONDS
    texts = {
        name: measure(max(0.0, end - time.monotonic()))
        for name, measure in measurements.items()
        if name in chosen.parts
    }
    body = "\n\n".join(
        f"### {name.capitalize()}\n\n{texts[name]}" for name in PARTS if name in texts
    )
    publish("gpu", body, chosen.write, PAGE)


def steps(size: str, limit: float) -> str:
    """The table of the training steps."""
    columns = ["network", "numbers", "XLA", "slices/s", "first step, s", "GPU memory, GB"]
    return lines_table(columns, command("gpu_steps", size), limit)


def pipeline(size: str, limit: float) -> str:
    """The table of the input pipeline."""
    return lines_table(["measurement", "value"], command("gpu_pipeline", size), limit)


def lines_table(columns: Sequence[str], words: Sequence[str], limit: float) -> str:
    """The table of the lines of JSON that a program prints within a limit in seconds."""
    printed, note = run(words, limit)
    # The last line may have been cut.
    rows = [json.loads(line) for line in printed.splitlines() if re.fullmatch(r"\[.*\]", line)]
    return "\n\n".join([table(columns, rows), *([note] if note else [])])


def run(words: Sequence[str], limit: float) -> tuple[str, str]:
    """What a program prints within a limit in seconds, and why it is not complete, or ""."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        printed, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        # With the processes that it started.
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        return printed, f"Not complete: the limit of {limit:.0f} s was reached."
    if process.returncode:
        return printed, f"Not complete: the program ended with {process.returncode}."
    return printed, ""


def workers(quick: bool, limit: float) -> str:
    """Samples a second of one worker and of two, with a GPU each."""
    count = len(gpu_names())
    if count < 2 and not quick:
        return f"Not measured: the machine has {count} GPU."
    start = time.monotonic()
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in (1, 2):
            left = limit - (time.monotonic() - start)
            config = training_overhead.settings(folder, quick).with_values(
                {
                    "network.image_size": 64 if quick else 512,
                    "data.phantom.size": 64 if quick else 512,
                    "train.batch_size": 8 * number,
                    "train.num_workers": number,
                    "train.gpus_per_worker": min(1, count),
                    "run.name": f"workers{number}",
                    "train.precision": "auto",
                }
            )
            path = Path(folder) / f"workers{number}.toml"
            path.write_text(to_toml(config), encoding="utf-8")
            _, note = run([sys.executable, "-m", "trainer", "train", str(path)], left)
            if note:
                rows.append([number, note])
                break
            seconds = training_overhead.epoch_seconds(folder, config.run.name)
            samples = config.data.phantom.train_patients * config.data.phantom.slices
            rows.append([number, f"{samples / (sum(seconds) / len(seconds)):.3g}"])
    return table(["workers, 8 slices each", "slices/s, validation included"], rows)


def service(quick: bool, limit: float) -> str:
    """The table of benchmarks/serving.py, with a GPU for the replica if there is one."""
    gpus = min(1, len(gpu_names()))
    words = [sys.executable, "-m", "benchmarks.serving", "--gpus", str(gpus)]
    printed, note = run([*words, *(["--quick"] if quick else [])], limit)
    return note or "\n".join(line for line in printed.splitlines() if line.startswith("|"))


def recipe(data: str, seconds: float, limit: float) -> str:
    """configs/pancreas-gpu.toml, trained for some seconds: its speed and its Dice by patient."""
    if not Path(data).is_dir():
        return f"Not measured: there is no folder {Path(data).name}; name one with --data."
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(ROOT / "configs" / "pancreas-gpu.toml", [f"data.root={data}"])
        config = config.with_values({"storage.root": folder, "train.preview_images": 0})
        path = Path(folder) / "recipe.toml"
        path.write_text(to_toml(config), encoding="utf-8")
        printed, note = run(command("network_trial", path, seconds, "test"), limit)
    if note:
        return note
    result = json.loads(printed.splitlines()[-1])
    columns = ["seconds of training", "slices trained", "slices/s", "Dice by patient, test"]
    row = [f"{seconds:.0f}", result["samples"], f"{result['trained']:.3g}", f"{result['dice']:.3f}"]
    return table(columns, [row])


if __name__ == "__main__":
    main()
