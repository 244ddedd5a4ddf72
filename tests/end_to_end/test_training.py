"""Training as a user runs it: a real worker group, killed workers and drivers, S3."""

import csv
import io
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from ray.train import ControllerError

from cluster.connection import Connection
from contract import bundle
from contract.config import Config
from contract.config.loader import to_toml
from contract.errors import DataError, TrainingError, UserError
from contract.registry import Registry, open_bundle
from contract.storage import Storage, open_storage
from inference.batch.predict_files import OutputFiles, create_job, predict_files
from inference.batch.scoring import ground_truth_encoding, open_ground_truth, score_files
from inference.predictor import load_predictor
from tests.class_slices import CLASSES, write_class_slices
from tests.damage import truncate
from tests.processes import titled
from tests.small import FEW_SLICES, NETWORK
from tests.waiting import wait_until
from trainer.data import cache, dataset_index
from trainer.evaluation.bundle_config import load_bundle_config
from trainer.evaluation.evaluate import evaluate
from trainer.training import checkpoints, launcher, run_store
from trainer.training.checkpoints import EpochMetrics
from tuning import best_trial
from tuning.trainable import train_in_process

ROOT = Path(__file__).parents[2]
# Of an epoch: enough for a worker to be killed in the middle, few enough to take a second.
STEPS = 60
EPOCHS = 5


def tiny(root: str, **train: object) -> Config:
    """Settings whose training takes seconds."""
    return Config.model_validate(
        {
            "run": {"name": "tiny", "seed": 1},
            "storage": {"root": root},
            "data": {"phantom": FEW_SLICES},
            "network": NETWORK,
            "train": {
                "num_workers": 2,
                "epochs": EPOCHS,
                "batch_size": 4,
                "steps_per_epoch": STEPS,
                "preview_images": 2,
                "patience": None,
                # Runs are compared to three digits, which bfloat16 does not have.
                "precision": "float32",
                **train,
            },
        }
    )


def epochs_in_csv(run: Storage) -> list[int]:
    rows = csv.DictReader(io.StringIO(run.read("train_metrics.csv").decode()))
    return [int(float(row["epoch"])) for row in rows]


def without_clock(history: tuple[dict[str, float], ...]) -> list[dict[str, float]]:
    return [{name: v for name, v in row.items() if name != "seconds"} for row in history]


@dataclass(frozen=True)
class Trained:
    """A run that was resumed after a kill."""

    result: run_store.RunResult
    messages: tuple[str, ...]
    """What was logged in the second training."""
    before: tuple[EpochMetrics, ...]
    """The epochs that the first driver finished."""


@pytest.fixture(scope="module")
def trained(ray_cluster: Connection, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One small training on two workers. First its driver is killed, then one of its workers.

    For every test that looks at what it left.
    """
    root = tmp_path_factory.mktemp("trained")
    config = tiny(str(root / "store"))
    kill_the_driver_after_the_first_epoch(config, root / "tiny.toml")
    before = run_store.read_history(run_store.run_storage(config))
    killed: list[int] = []

    def kill_one_in_mid_epoch(done: int, total: int | None, note: str) -> None:
        if not killed and len(before) * STEPS < done < EPOCHS * STEPS:
            killed.append(max(titled("ray::RayTrainWorker")))
            os.kill(killed[0], signal.SIGKILL)

    with captured_logs() as messages:
        result = launcher.run_training(config, kill_one_in_mid_epoch)
    assert killed
    return Trained(result, tuple(messages), before)


def kill_the_driver_after_the_first_epoch(config: Config, path: Path) -> None:
    """Train with the command, in a cluster of its own, which Ray ends when its driver is gone."""
    path.write_text(to_toml(config.with_values({"cluster.cpus": 2})), encoding="utf-8")
    command = [sys.executable, "-m", "trainer", "train", str(path)]
    environment = {name: v for name, v in os.environ.items() if name != "RAY_ADDRESS"}
    driver = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    run = run_store.run_storage(config)

    def has_checkpoint() -> bool:
        assert driver.poll() is None, "the driver ended by itself"
        return any(o.key.endswith("checkpoint.json") for o in run.list_objects("checkpoints"))

    wait_until(has_checkpoint)
    assert len(titled("ray::RayTrainWorker", driver.pid)) == 2
    driver.kill()
    driver.wait()
    assert not run.exists("run.json")


@contextmanager
def captured_logs() -> Iterator[list[str]]:
    """What the trainer logs in the block."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("trainer")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def test_a_killed_driver_costs_no_finished_epoch(trained: Trained) -> None:
    assert 1 <= len(trained.before) < EPOCHS
    # With the seconds that each took: none was trained again.
    assert trained.result.history[: len(trained.before)] == trained.before
    assert any("run tiny resumes after epoch" in message for message in trained.messages)
    # The killed worker of the second training is named.
    restarts = [message for message in trained.messages if "restarting from epoch" in message]
    assert len(restarts) == 1
    assert re.search(r"worker \d \(pid \d+, .+\) ended .* \(attempt 1 of \d\)", restarts[0])


def test_a_run_leaves_what_its_user_expects_though_a_worker_was_lost(trained: Trained) -> None:
    run = open_storage(trained.result.run)
    names = {entry.key for entry in run.list_objects()}
    assert {
        "config.toml",
        "run.json",
        "train_metrics.csv",
        "train_metrics.png",
        "train_losses.csv",
        "train_losses.png",
        "network.svg",
        "network.txt",
        # A preview follows its checkpoint: that of the epoch with the kill may be missing.
        "previews/epoch-0005.png",
        "previews/epochs.png",
        "bundle/manifest.json",
    } <= names
    assert any(name.startswith("tensorboard/events") for name in names)
    assert epochs_in_csv(run) == list(range(1, EPOCHS + 1))


def test_workers_leave_no_temporary_files_though_one_was_killed(trained: Trained) -> None:
    @ray.remote
    def list_temporary_files() -> list[str]:
        return [path.name for path in Path(tempfile.gettempdir()).iterdir()]

    # TensorFlow writes a file for each function that it converts.
    left: list[str] = ray.get(list_temporary_files.remote())
    assert not [name for name in left if "autograph" in name or name.startswith("segfleet-")]


def test_the_bundle_is_whole_and_names_its_making(trained: Trained) -> None:
    manifest = bundle.verify(Path(trained.result.bundle))
    assert manifest.name == "tiny"
    assert manifest.image_size == (32, 32)
    assert manifest.metrics == trained.result.best
    slices = dataset_index.prepare_dataset(
        tiny("").data, 1, open_storage(str(Path(trained.result.run).parents[1]))
    )
    assert manifest.dataset == slices.fingerprint
    assert manifest.patients == {
        "train": ("PHANTOM_0001", "PHANTOM_0002"),
        "valid": ("PHANTOM_1001",),
    }


def test_a_finished_run_is_not_trained_again(
    ray_cluster: Connection, trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    root = str(Path(trained.result.run).parents[1])
    before = open_storage(trained.result.run).list_objects()
    with caplog.at_level("INFO"):
        again = launcher.run_training(tiny(root))
    assert again == trained.result
    assert "already finished" in caplog.text
    assert open_storage(trained.result.run).list_objects() == before


def test_each_damaged_state_file_is_named_repaired_or_skipped(trained: Trained) -> None:
    """What the commands read of a dataset, a run, a bundle and the registry."""
    root = Path(trained.result.run).parents[1]
    config = tiny(str(root))
    storage, run = open_storage(str(root)), run_store.run_storage(config)
    registry = Registry(storage)
    version = registry.register("tiny", trained.result.bundle).version
    registry.promote("tiny", version, "production")

    def read_all() -> None:
        slices = dataset_index.prepare_dataset(config.data, config.run.seed, storage)
        run_store.check_resumable(run, config, slices)
        run_store.read_result(run)
        checkpoints.load_latest(run.child("checkpoints"))
        load_bundle_config(open_storage(trained.result.bundle), (), {})
        registry.versions("tiny")
        open_bundle("tiny@production", str(root))

    files = [path for path in root.rglob("*.*") if path.suffix in (".json", ".toml")]
    names = {path.name for path in files}
    assert {"run.json", "config.toml", "dataset.json", "checkpoint.json", "index.json"} <= names
    errors: list[tuple[str, str]] = []
    for path in files:
        whole = path.read_bytes()
        for damaged in (truncate(whole), b"", b"\xff\xfe", b"[]", b"null"):
            path.write_bytes(damaged)
            try:
                read_all()
            except UserError as error:
                errors.append((path.name, str(error)))
            finally:
                path.write_bytes(whole)
    assert all(name in error and "\n" not in error for name, error in errors)
    named = {"run.json", "config.toml", "dataset.json", "manifest.json", "000001.json"}
    assert {name for name, _ in errors} >= named
    read_all()


def test_a_run_started_with_other_settings_is_rejected(
    ray_cluster: Connection, trained: Trained
) -> None:
    root = str(Path(trained.result.run).parents[1])
    with pytest.raises(TrainingError, match=r"train\.epochs was 5, now 6.*run\.name"):
        launcher.run_training(tiny(root, epochs=EPOCHS + 1))


def test_one_process_alone_computes_what_two_workers_do_and_in_s3_too(
    trained: Trained, s3: str
) -> None:
    config = tiny(f"{s3}/store", num_workers=1)
    slices = dataset_index.prepare_dataset(
        config.data, config.run.seed, open_storage(config.storage.root)
    )
    alone: list[EpochMetrics] = []
    train_in_process(config, slices, alone.append)
    for epoch, (one, two) in enumerate(zip(alone, trained.result.history, strict=True)):
        for name in ("loss", "val_loss", "val_dice_coef"):
            # Training amplifies the differences of rounding.
            assert one[name] == pytest.approx(two[name], rel=1e-2 if epoch else 1e-3)
    made = best_trial.finalize_trial_run(config, None)
    assert made == f"{s3}/store/runs/tiny/bundle"
    assert (bundle.fetch(open_storage(made)) / "saved_model").is_dir()


def test_an_interrupted_run_continues_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def break_off(row: dict[str, float]) -> None:
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    histories = []
    for name, report in (("whole", lambda row: None), ("broken", break_off)):
        # Dropout too draws what it would have drawn, in a network that was used before.
        config = tiny(str(tmp_path / name), num_workers=1).with_values(
            {"network.dropout_rate": 0.3}
        )
        slices = dataset_index.prepare_dataset(
            config.data, config.run.seed, open_storage(config.storage.root)
        )
        if name == "broken":
            with pytest.raises(KeyboardInterrupt):
                train_in_process(config, slices, report)
        train_in_process(config, slices, lambda row: None)
        histories.append(run_store.read_history(run_store.run_storage(config)))
    whole, broken = map(without_clock, histories)
    assert [row["epoch"] for row in broken] == list(range(1, EPOCHS + 1))
    for one, two in zip(whole, broken, strict=True):
        assert one == pytest.approx(two, rel=1e-4)


def test_a_slice_damaged_after_it_was_checked_is_named(
    ray_cluster: Connection, tmp_path: Path
) -> None:
    config = tiny(str(tmp_path)).with_values({"run.seed": 77})
    slices = dataset_index.prepare_dataset(
        config.data, config.run.seed, open_storage(str(tmp_path))
    )
    image = Path(slices.root) / slices.select("train")[0].image
    before = image.stat()
    image.write_bytes(b"x" * before.st_size)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match=image.name) as error:
        launcher.run_training(config)
    assert_not_tried_again(error.value)


def test_slices_that_vanish_from_the_cache_are_decoded_again(
    ray_cluster: Connection, tmp_path: Path
) -> None:
    """The system may clear its temporary folder while a training runs."""
    config = tiny(str(tmp_path), num_workers=1, epochs=2).with_values({"run.seed": 78})
    slices = dataset_index.prepare_dataset(
        config.data, config.run.seed, open_storage(str(tmp_path))
    )
    cached = cache.load_split(slices, "train", config.network, config.storage.cache_gb, config.data)
    vanished: list[Path] = []

    def delete_slices(done: int, total: int | None, note: str) -> None:
        if not vanished and done:
            vanished.extend(sorted(cached.folder.glob("0*")))
            for path in vanished:
                path.unlink()

    with captured_logs() as messages:
        result = launcher.run_training(config, delete_slices)
    assert vanished
    assert [epoch["epoch"] for epoch in result.history] == [1, 2]
    assert all(path.exists() for path in vanished)
    (restart,) = [message for message in messages if "restarting from epoch" in message]
    assert restart.startswith("worker 0 failed: decoded slices were deleted from ")
    assert re.search(r"temporary files; restarting from epoch [12] \(attempt 1 of 3\)$", restart)


def assert_not_tried_again(error: BaseException) -> None:
    """Ray Train was told to give up; a worker's error that it has counted is another one."""
    assert isinstance(error.__cause__, ControllerError)


def test_a_worker_that_does_not_see_the_run_says_so_at_once(
    ray_cluster: Connection, tmp_path: Path
) -> None:
    config = tiny(str(tmp_path), num_workers=1)
    slices = dataset_index.prepare_dataset(
        config.data, config.run.seed, open_storage(str(tmp_path))
    )
    # No one has started the run: so it looks on a node with a folder of its own.
    with pytest.raises(TrainingError, match=r"storage\.root must be reachable from every") as error:
        launcher.run_worker_group(config, slices, lambda done, total, note: None)
    assert_not_tried_again(error.value)
    assert open_storage(str(tmp_path)).list_objects("runs") == []


def test_three_classes_in_color_are_trained_and_predicted(
    ray_cluster: Connection, tmp_path: Path
) -> None:
    write_class_slices(tmp_path / "slices")
    values = {
        "data.source": "folder",
        "data.root": str(tmp_path / "slices"),
        "data.layout": "unsplit",
        "data.classes": CLASSES,
        "network.base_filters": 8,
        "network.image_size": 64,
        "train.learning_rate": 1e-2,
        "train.class_weights": {"lesion": 2.0},
    }
    config = tiny(str(tmp_path / "store")).with_values(values)
    result = launcher.run_training(config)
    for name in ("dice_coef", "specificity_bone", "val_sensitivity_lesion", "val_dice_coef_organ"):
        assert name in result.history[0]
    dataset = dataset_index.prepare_dataset(config.data, 1, open_storage(config.storage.root))
    storage = open_storage(result.bundle)
    evaluation = evaluate(
        storage, dataset, "test", config.data, config.predict, open_storage(str(tmp_path / "out"))
    )
    assert evaluation.classes == ("organ", "lesion", "bone")
    for name in evaluation.classes:
        dice = evaluation.summary_of("dice", name).mean
        assert dice is not None
        assert dice > 0.7
    # OpenVINO predicts the masks that TensorFlow predicted in the evaluation.
    job, keys = create_job(
        str(tmp_path / "slices/images"),
        str(tmp_path / "masks"),
        OutputFiles(bundle.read_manifest(storage).classes, (0.0, 255.0), probabilities=True),
    )
    assert predict_files(job, load_predictor(storage), keys, 8) == {}
    ground_truth = open_ground_truth(
        str(tmp_path / "slices/masks"),
        ground_truth_encoding(bundle.read_manifest(storage)),
        None,
        r"^P\d",
    )
    counts, failures = score_files(ground_truth, job, keys)
    assert not failures
    scores = {score.name: score.by_class for score in ground_truth.scores(counts)}
    for patient in evaluation.patients:
        expected = [each.dice for each in patient.counts]
        assert scores[patient.patient] == pytest.approx(expected, abs=0.005)
