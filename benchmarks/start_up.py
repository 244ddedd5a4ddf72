"""Seconds from the command to the first training step, by phase, next to a plain script.

The phases are those `segfleet train` shows in its progress: the driver's own imports and checks,
Ray, the worker processes with TensorFlow and the slices, then the network and the first step
(which traces and compiles the graph). The plain script imports TensorFlow, builds the same network
and makes one step on random numbers. So do two workers of Ray's own TensorflowTrainer, in whose
place segfleet has a backend of its own (docs/decisions/0009).
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import arguments, command, publish, table

PROGRAMS = Path(__file__).with_name("programs")


def main() -> None:
    """Measure each once and publish the phases."""
    chosen = arguments(__doc__).parse_args()
    demo = str(Path(__file__).parents[1] / "configs" / "demo.toml")
    with tempfile.TemporaryDirectory() as folder:
        script = PROGRAMS / "first_step.py"
        result = subprocess.run(
            [sys.executable, str(script), demo, folder], check=True, capture_output=True, text=True
        )
    lines = [line.split("\t") for line in result.stdout.splitlines() if line.startswith("PHASE")]
    phases = [(name, float(seconds)) for _, name, seconds in lines]
    began = time.monotonic()
    subprocess.run(command("plain_first_step", demo), check=True, capture_output=True)
    plain = time.monotonic() - began
    rays_own = tensorflow_trainer(demo)
    total = sum(seconds for _, seconds in phases)
    rows = [[name, f"{seconds:.1f}"] for name, seconds in phases]
    rows += [["**together**", f"**{total:.1f}**"], ["plain script", f"{plain:.1f}"]]
    rows += [["Ray's TensorflowTrainer, 2 workers, one step", f"{rays_own:.1f}"]]
    publish("start_up", table(["phase", "seconds"], rows), chosen.write)


def tensorflow_trainer(config: str) -> float:
    """Seconds from the start of a script to the end of the first step of Ray's own trainer."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        subprocess.run(
            command("tensorflow_trainer", config, folder), check=True, capture_output=True
        )
        return float((Path(folder) / "finished").read_text(encoding="utf-8")) - began


if __name__ == "__main__":
    main()
