"""Sweeps as a user runs them: real trials on a real cluster, lost processes, a killed driver."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import ray

from cluster.connection import Connection
from cluster.placement_groups import orphan_cleanup
from contract import bundle
from contract.config import Config
from contract.config.loader import load_config, to_toml
from contract.errors import ClusterError, ConfigError, TrainingError
from contract.registry import Registry
from contract.storage import open_storage
from tests.processes import titled
from tests.small import FEW_SLICES, NETWORK
from tests.waiting import wait_until
from trainer.data import dataset_index
from tuning import sweep, trainable
from tuning.trial_store import EpochMetrics, Trial, TrialStore, read_trials

ROOT = Path(__file__).parents[2]
MONITOR = "val_dice_coef"
TRIAL = "ray::ImplicitFunc"
"""Title of the processes that Ray Tune's trials run in."""


def tiny(root: str, **changed: object) -> Config:
    """Settings whose trials take seconds."""
    config = Config.model_validate(
        {
            "run": {"name": "tiny", "seed": 271},
            "storage": {"root": root},
            "data": {"phantom": FEW_SLICES},
            "network": NETWORK,
            "train": {
                "num_workers": 1,
                "epochs": 3,
                "batch_size": 4,
                "steps_per_epoch": 4,
                "patience": None,
            },
            "sweep": {
                "num_samples": 6,
                "max_concurrent_trials": 2,
                "grace_period": 1,
                "reduction_factor": 2,
                "space": {
                    "train.learning_rate": {"loguniform": [1e-5, 5e-2]},
                    "network.num_layers": {"choice": [2, 3, 7]},
                },
            },
        }
    )
    return config.with_values(changed)


def without_clock(history: tuple[EpochMetrics, ...]) -> list[EpochMetrics]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "time_s")} for row in history]


def processes_of(root: Path, trial: Trial) -> set[str]:
    """The processes that trained a trial, as the names of TensorBoard's files tell."""
    # None where it was lost between its checkpoint and the rest, and then stopped.
    events = open_storage(str(root)).list_objects(f"runs/{trial.run}/tensorboard")
    return {event.key.split(".")[-3] for event in events}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("swept")


@pytest.fixture(scope="module")
def swept(ray_cluster: Connection, root: Path) -> sweep.SweepResult:
    """One sweep of which one process is killed, for every test that looks at what it left."""
    killed: list[int] = []

    def kill_one_after_its_first_epoch(done: int, total: int | None, note: str) -> None:
        if not killed and " 1 epoch," in note:
            killed.append(titled(TRIAL)[0])
            os.kill(killed[0], signal.SIGKILL)

    result = sweep.run_sweep(tiny(str(root)), kill_one_after_its_first_epoch)
    assert killed
    return result


def test_every_trial_has_ended_and_poor_ones_early(swept: sweep.SweepResult) -> None:
    assert sorted(trial.number for trial in swept.trials) == [1, 2, 3, 4, 5, 6]
    states = [trial.status for trial in swept.trials]
    assert set(states) == {"completed", "paused", "failed"}
    for trial in swept.trials:
        epochs = [row["epoch"] for row in trial.history]
        assert epochs == [float(epoch) for epoch in range(1, len(epochs) + 1)]
        assert (len(epochs) == 3) == (trial.status == "completed")


def test_what_cannot_be_built_is_reported_in_a_sentence(swept: sweep.SweepResult) -> None:
    failed = [trial for trial in swept.trials if trial.status == "failed"]
    assert {trial.values["network.num_layers"] for trial in failed} == {7}
    assert all("must be at least 64 pixels" in str(trial.error) for trial in failed)
    assert swept.trials[-1] in failed


def test_a_lost_process_costs_no_epoch(swept: sweep.SweepResult) -> None:
    assert sum(trial.lost_processes for trial in swept.trials) == 1


def test_trials_share_processes(swept: sweep.SweepResult, root: Path) -> None:
    trained = [trial for trial in swept.trials if trial.history]
    assert len(trained) >= 4
    # Two side by side, and one in the place of the lost one.
    assert len(set.union(*(processes_of(root, trial) for trial in trained))) <= 3


def test_the_best_trial_has_the_best_score_and_its_bundle_is_registered(
    swept: sweep.SweepResult, root: Path
) -> None:
    scores = [max(trial.scores(MONITOR)) for trial in swept.trials if trial.history]
    assert swept.score == max(scores) == scores[0]
    assert swept.best_trial == swept.trials[0]
    version = Registry(open_storage(str(root))).resolve("tiny@1")
    assert version == swept.version
    assert bundle.verify(Path(version.bundle)).metrics[MONITOR] == swept.score


def test_it_leaves_what_its_user_expects(swept: sweep.SweepResult) -> None:
    names = {entry.key for entry in open_storage(swept.storage_url).list_objects()}
    assert names >= {
        "config.toml",
        "leaderboard.csv",
        "scores.png",
        "settings.png",
        "best_trial.toml",
        "sweep.json",
        "trials/0006.json",
    }


def test_training_the_best_trials_settings_gives_its_score_again(
    swept: sweep.SweepResult, root: Path, tmp_path: Path
) -> None:
    config = load_config(
        f"{swept.storage_url}/best_trial.toml",
        [f"storage.root={tmp_path}", "train.preview_images=0"],
    )
    assert config.run.name == "tiny-best"
    assert config.train.learning_rate == swept.best_trial.values["train.learning_rate"]
    slices = dataset_index.prepare_dataset(config.data, config.run.seed, open_storage(str(root)))
    rows: list[EpochMetrics] = []
    trainable.train_in_process(config, slices, rows.append)
    assert max(row[MONITOR] for row in rows) == pytest.approx(swept.score, abs=1e-3)


def test_the_same_command_finds_the_sweep_finished(swept: sweep.SweepResult, root: Path) -> None:
    assert sweep.run_sweep(tiny(str(root))) == swept


def test_more_trials_continue_it_and_other_settings_do_not(
    swept: sweep.SweepResult, root: Path
) -> None:
    with pytest.raises(TrainingError, match=r"train\.batch_size was 4, now 8"):
        sweep.run_sweep(tiny(str(root), **{"train.batch_size": 8}))
    with pytest.raises(TrainingError, match=r"sweep\.search_algorithm was 'random', now 'tpe'"):
        sweep.run_sweep(tiny(str(root), **{"sweep.search_algorithm": "tpe"}))
    longer = tiny(str(root), **{"sweep.num_samples": 9})
    slices = dataset_index.prepare_dataset(longer.data, longer.run.seed, open_storage(str(root)))
    sweep.check_resumable(sweep.sweep_storage(longer), longer, slices)
    split_again = dataclasses.replace(slices, fingerprint="0123456789abcdef")
    with pytest.raises(TrainingError, match=r"sweep 'tiny' .* started with other slices or splits"):
        sweep.check_resumable(sweep.sweep_storage(longer), longer, split_again)


def test_a_trial_of_two_workers_trains_as_a_group(ray_cluster: Connection, tmp_path: Path) -> None:
    changed = {
        "sweep.num_workers": 2,
        "sweep.num_samples": 2,
        # A group takes all there is: what a stopped one had reserved must be free for the next.
        "sweep.max_concurrent_trials": 1,
        "train.cpus_per_worker": 2,
        "sweep.space": {"train.learning_rate": {"choice": [1e-2, 1e-6]}},
        "train.epochs": 2,
        # Its draws each worker keys by its rank.
        "network.dropout_rate": 0.2,
    }
    result = sweep.run_sweep(tiny(str(tmp_path), **changed))
    assert [trial.status for trial in result.trials] == ["completed", "paused"]
    assert [len(trial.history) for trial in result.trials] == [2, 1]
    # The sweep's job ends with the tests only.
    with orphan_cleanup():
        wait_until(lambda: ray.available_resources().get("CPU") == 4)
    assert load_config(f"{result.storage_url}/best_trial.toml").train.num_workers == 2
    # What the bundle was chosen from counts, though Tune was told of the first epoch alone.
    output = {"status": "paused", "history": result.best_trial.history[:1]}
    record = result.best_trial.model_copy(update=output).model_dump_json()
    open_storage(result.storage_url).write(
        f"trials/{result.best_trial.number:04}.json", record.encode()
    )
    again = sweep.run_sweep(tiny(str(tmp_path), **changed))
    assert without_clock(again.best_trial.history) == without_clock(result.best_trial.history)
    assert again.score == bundle.verify(Path(result.version.bundle)).metrics[MONITOR]


def test_a_sweep_without_a_score_says_why(ray_cluster: Connection, tmp_path: Path) -> None:
    space = {"network.num_layers": {"choice": [7, 8]}}
    with pytest.raises(TrainingError, match=r"no trial of sweep 'tiny' .* must be at least"):
        sweep.run_sweep(tiny(str(tmp_path), **{"sweep.space": space}))


def test_an_error_in_training_fails_a_trial_and_the_same_seed_draws_the_same_ones(
    swept: sweep.SweepResult, tmp_path: Path
) -> None:
    changed = {"sweep.num_samples": 2, "sweep.max_concurrent_trials": 1, "data.phantom.slices": 5}
    config = tiny(str(tmp_path), **changed)
    slices = dataset_index.prepare_dataset(
        config.data, config.run.seed, open_storage(str(tmp_path))
    )
    image = Path(slices.root, slices.select("train")[0].image)
    before = image.stat()
    image.write_bytes(b"x" * before.st_size)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(TrainingError, match=image.name):
        sweep.run_sweep(config)
    trials = sweep.read_leaderboard(config)
    assert [(trial.status, trial.lost_processes) for trial in trials] == [
        ("failed", 0),
        ("failed", 0),
    ]
    values = {trial.number: trial.values for trial in swept.trials}
    assert {trial.number: trial.values for trial in trials} == {n: values[n] for n in (1, 2)}


def searched(
    config: Config, trial_store: TrialStore, on_progress: sweep.ProgressCallback
) -> list[Trial]:
    """The trials of a sweep that is searched and makes no bundle."""
    slices = dataset_index.prepare_dataset(
        config.data, config.run.seed, open_storage(config.storage.root)
    )
    sweep.search(config, [slices], trial_store, on_progress)
    return trial_store.trials


def test_a_trial_that_loses_its_process_again_and_again_ends_the_sweep(
    ray_cluster: Connection, tmp_path: Path
) -> None:
    changed = {"sweep.num_samples": 1, "train.epochs": 1000, "train.max_failures": 0}
    config = tiny(str(tmp_path), **changed)

    def kill_at_once(done: int, total: int | None, note: str) -> None:
        for process in titled(TRIAL):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    (trial,) = searched(config, TrialStore(sweep.sweep_storage(config)), kill_at_once)
    assert (trial.status, trial.lost_processes) == ("failed", 1)
    assert "lost more than train.max_failures = 0 times" in str(trial.error)


def test_a_trial_that_waits_for_room_starts_no_epoch_after_the_time_budget(
    ray_cluster: Connection, tmp_path: Path
) -> None:
    room_for_one = {
        "train.cpus_per_worker": 3,
        "sweep.num_samples": 2,
        "sweep.max_concurrent_trials": 2,
    }
    config = tiny(str(tmp_path), **room_for_one, **{"sweep.time_budget_s": 60.0})
    seconds = [0.0]

    def the_time_is_over_after_an_epoch(done: int, total: int | None, note: str) -> None:
        if " 0 epochs" not in note:
            seconds[0] = 61.0

    trial_store = TrialStore(sweep.sweep_storage(config), lambda: seconds[0])
    first, second = searched(config, trial_store, the_time_is_over_after_an_epoch)
    assert first.history
    assert (second.status, second.history) == ("out of time", ())


def test_as_many_trials_as_requested_else_as_the_cluster_holds(ray_cluster: Connection) -> None:
    config = tiny("/nowhere", **{"sweep.max_concurrent_trials": None})
    assert sweep.max_concurrent_trials(config.sweep, config.train) == 4
    # More than the cluster holds: it grows by the trials that wait.
    more = config.with_values({"sweep.max_concurrent_trials": 9})
    assert sweep.max_concurrent_trials(more.sweep, more.train) == 9


def test_a_cluster_too_small_for_one_trial_is_rejected(ray_cluster: Connection) -> None:
    big = tiny("/nowhere", **{"train.cpus_per_worker": 64, "sweep.max_concurrent_trials": None})
    with pytest.raises(ClusterError, match="cannot hold a trial of 1 workers with 64 CPUs"):
        sweep.max_concurrent_trials(big.sweep, big.train)


def test_a_name_too_long_for_its_runs_is_rejected_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.name = 'n+-\d{4}'"):
        sweep.run_sweep(tiny(str(tmp_path), **{"run.name": "n" * 76}))


def test_there_is_no_leaderboard_of_what_never_started(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there is no sweep 'tiny'"):
        sweep.read_leaderboard(tiny(str(tmp_path)))


def wait_for(there: Callable[[], bool], driver: subprocess.Popen[bytes]) -> None:
    def is_there() -> bool:
        assert driver.poll() is None, "the driver ended by itself"
        return there()

    wait_until(is_there, interval_s=0.05)


def test_a_killed_driver_repeats_no_finished_trial(ray_cluster: Connection, tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    changed = {
        "sweep.num_samples": 4,
        "train.steps_per_epoch": 10,
        "sweep.max_concurrent_trials": 1,
    }
    config = tiny(str(tmp_path / "store"), **changed, **{"sweep.early_stopping": False})
    path.write_text(to_toml(config.with_values({"cluster.cpus": 2})), encoding="utf-8")
    command = [sys.executable, "-m", "tuning", "sweep", str(path)]
    environment = {name: v for name, v in os.environ.items() if name != "RAY_ADDRESS"}
    first = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    store = sweep.sweep_storage(config)

    def one_done_and_one_under_way() -> bool:
        trials = read_trials(store)
        return any(t.status == "completed" for t in trials) and any(
            t.status == "running" and t.history for t in trials
        )

    wait_for(one_done_and_one_under_way, first)
    first.kill()
    first.wait()
    before = {trial.number: trial for trial in read_trials(store)}
    result = sweep.run_sweep(config)
    assert (result.version.name, result.version.version) == ("tiny", 1)
    after = {trial.number: trial for trial in read_trials(store)}
    assert sorted(after) == [1, 2, 3, 4]
    for number, trial in before.items():
        if trial.status != "running":
            assert after[number] == trial
        else:
            assert after[number].history[: len(trial.history)] == trial.history
            assert [row["epoch"] for row in after[number].history] == [1.0, 2.0, 3.0]
