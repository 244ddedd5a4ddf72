"""Seconds from the command to the first training step, by phase, next to a plain script.

The phases are those `segfleet train` shows in its progress: the driver's own imports and checks,
Ray, the worker processes with TensorFlow and the slices, then the network and the first step
(which traces and compiles the graph). The plain script imports TensorFlow, builds the same network
and makes one step on random numbers. So do two workers of Ray's own TensorflowTrainer, in whose
place segfleet has a backend of its own (docs/decisions/0009).
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import arguments, publish, table

PHASED = """
import time
began = time.monotonic()
import sys
from contract.config.loader import load_config
from contract.storage import open_storage
from trainer.training import launcher
from trainer.data.dataset_index import prepare_dataset

overrides = [f"storage.root={sys.argv[2]}", "train.epochs=1", "train.preview_images=0"]
config = load_config(sys.argv[1], overrides)
marks = [("import the driver, read the settings", time.monotonic())]
prepare_dataset(config.data, config.run.seed, open_storage(config.storage.root))
marks.append(("prepare the slices (first time)", time.monotonic()))
names = {"building the network": "start Ray and the workers, import TensorFlow, cache the slices"}


def watch(done, total, note):
    name = names.pop(note, None) if not done else "build the network, first step"
    if name and name not in dict(marks):
        marks.append((name, time.monotonic()))


launcher.run_training(config, watch)
for (name, at), before in zip(marks, [began] + [at for _, at in marks]):
    print(f"PHASE\\t{name}\\t{at - before:.2f}")
"""

PLAIN = """
import sys
import numpy as np, tensorflow as tf, tf_keras as keras
from contract.config.loader import load_config
from trainer.networks.registry import build_network
from trainer.components.metrics import SegmentationMetrics
from trainer.components.losses import SegmentationLoss
from trainer.networks.layers import bind_dropout

config = load_config(sys.argv[1])
model = build_network(config.network, 1, config.input_channels)
model.compile(
    keras.optimizers.AdamW(),
    SegmentationLoss(config.train.loss),
    weighted_metrics=[SegmentationMetrics(["foreground"])],
)
bind_dropout(model, config.run.seed)
shape, batch = config.network.image_shape, config.train.batch_size
slices = np.random.rand(batch, *shape, config.network.image_channels).astype("float32")
model.train_on_batch(slices, (slices[..., :1] > 0.9).astype("float32"))
"""


TENSORFLOW_TRAINER = """
import os, sys
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.tensorflow import TensorflowTrainer


def train_loop(paths):
    import time
    from pathlib import Path
    import numpy as np, tensorflow as tf, tf_keras as keras
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    from contract.config.loader import load_config
    from trainer.networks.registry import build_network
    from trainer.components.metrics import SegmentationMetrics
    from trainer.components.losses import SegmentationLoss
    from trainer.networks.layers import bind_dropout

    config = load_config(paths["config"])
    with strategy.scope():
        model = build_network(config.network, 1, config.input_channels)
        model.compile(
            keras.optimizers.AdamW(),
            SegmentationLoss(config.train.loss),
            weighted_metrics=[SegmentationMetrics(["foreground"])],
        )
        bind_dropout(model, config.run.seed)
    shape, batch = config.network.image_shape, config.train.batch_size // 2
    slices = np.random.rand(batch, *shape, config.network.image_channels).astype("float32")
    data = tf.data.Dataset.from_tensors((slices, (slices[..., :1] > 0.9).astype("float32")))
    batches = strategy.distribute_datasets_from_function(lambda _: data.repeat())
    model.fit(batches, steps_per_epoch=1, epochs=1, verbose=0)
    Path(paths["finished"]).write_text(str(time.time()), encoding="utf-8")


ray.init(num_cpus=2, log_to_driver=False)
TensorflowTrainer(
    train_loop,
    train_loop_config={"config": sys.argv[1], "finished": sys.argv[2] + "/finished"},
    scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
    run_config=RunConfig(storage_path=sys.argv[2]),
).fit()
"""


def main() -> None:
    """Measure each once and publish the phases."""
    chosen = arguments(__doc__).parse_args()
    demo = str(Path(__file__).parents[1] / "configs" / "demo.toml")
    with tempfile.TemporaryDirectory() as folder:
        # From a file: with `python -c`, Ray makes its workers look for every module in the current
        # folder first, which commands do not.
        script = Path(folder) / "phased.py"
        script.write_text(PHASED, encoding="utf-8")
        result = subprocess.run(
            [sys.executable, str(script), demo, folder], check=True, capture_output=True, text=True
        )
    lines = [line.split("\t") for line in result.stdout.splitlines() if line.startswith("PHASE")]
    phases = [(name, float(seconds)) for _, name, seconds in lines]
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", PLAIN, demo], check=True, capture_output=True)
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
        script = Path(folder) / "trainer_of_ray.py"
        script.write_text(TENSORFLOW_TRAINER, encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        began = time.time()
        subprocess.run(
            [sys.executable, str(script), config, folder],
            check=True,
            capture_output=True,
            env=environment,
        )
        return float((Path(folder) / "finished").read_text(encoding="utf-8")) - began


if __name__ == "__main__":
    main()
