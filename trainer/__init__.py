"""From a TOML file to a bundle: data, networks, training on Ray Train, export and evaluation.

For notebooks and scripts: load_config, plan, prepare, train, cross_validate, tune_folds, evaluate
and compare (docs/python.md). They do what the commands of the same names do, with a progress bar.
May import cluster and contract. The order of the packages inside is in docs/architecture.md.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.config import Config, Storage
from contract.config.loader import load_config
from trainer.evaluation.surface_tolerance import SURFACE_TOLERANCE

if TYPE_CHECKING:
    from trainer.cross_validation.fold_tuning import TunedFolds
    from trainer.cross_validation.results import CrossValidation
    from trainer.data.dataset_index import Dataset, Split
    from trainer.evaluation.comparison import Comparison
    from trainer.evaluation.scores import Evaluation
    from trainer.planning.plan import PlannedSettings
    from trainer.training.run_store import RunResult

__all__ = [
    "compare",
    "cross_validate",
    "evaluate",
    "load_config",
    "plan",
    "prepare",
    "train",
    "tune_folds",
]


def plan(
    data: str | Path,
    overrides: Sequence[str] = (),
    *,
    base: str | Path | None = None,
    minutes: float = 15.0,
    measure: bool = True,
    **settings: Any,
) -> "PlannedSettings":
    """Choose settings for a dataset, the machines that will train, and a time.

    The machines are those of the cluster that cluster.address or RAY_ADDRESS names, else this one.

    Args:
        data: The folder or s3:// address of the slices.
        overrides: Settings that are kept as they are given, as on the command line.
        base: A TOML file whose settings are kept too.
        minutes: The time for the training, its start and the bundle included; at least 1.
        measure: Time some training steps on this machine; False: only estimate them.
        **settings: Settings that are kept, as for load_config.

    Returns:
        The settings: `config`; `text`, the TOML file with the reasons as comments; `plan.choices`,
        each setting with its reason; `fingerprint`, what is known of the dataset.

    Raises:
        ConfigError: A setting is unknown, or does not fit the others.
        DataError, StorageError: The slices cannot be read or are incomplete, or it is not clear
            what is a patient or foreground.

    Example:
        >>> planned = trainer.plan("slices", minutes=30, data={"mask_threshold": 0})
        >>> trainer.train(planned.config)
    """
    from contract.cli.log_setup import configure_libraries
    from contract.cli.progress_bar import progress_bar
    from contract.errors import ConfigError

    if minutes < 1:
        raise ConfigError(f"minutes = {minutes:g} is too short for a training: give 1 or more.")
    configure_libraries()
    from trainer.planning.plan import create_plan, read_given

    given = read_given(str(data), Path(base) if base else None, overrides, settings)
    with progress_bar("reading slices") as bar:
        return create_plan(str(data), given, minutes, bar.set, measure=measure)


def prepare(config: Config) -> "Dataset":
    """Check every slice and mask, split by patient, and write the index that training reads.

    Args:
        config: The settings; [data] describes the slices.

    Returns:
        The slices with their splits and patients.

    Raises:
        DataError: A slice or a mask cannot be used; the message names the file.

    Example:
        >>> dataset = trainer.prepare(trainer.load_config("configs/demo.toml"))
        >>> dataset.patients("test")
    """
    from contract.cli.progress_bar import progress_bar
    from contract.storage import open_storage
    from trainer.data.dataset_index import prepare_dataset

    with progress_bar("slices") as bar:
        storage = open_storage(config.storage.root)
        return prepare_dataset(config.data, config.run.seed, storage, bar.set)


def train(config: Config) -> "RunResult":
    """Train a network on Ray, or resume the run of this name.

    It runs on the cluster of cluster.address or RAY_ADDRESS, else on a local one on this machine
    that ends with the training.

    Args:
        config: The settings.

    Returns:
        The finished run: `bundle`, its address; `best`, the metrics of the best epoch; `history`,
        those of every epoch, as rows of a table (pandas.DataFrame(run.history)).

    Raises:
        UserError: The run cannot start, or cannot end; the message names the cause.

    Example:
        >>> run = trainer.train(trainer.load_config("configs/demo.toml", train={"epochs": 3}))
        >>> run.best["val_dice_coef"]
    """
    from contract.cli.log_setup import configure_libraries
    from contract.cli.progress_bar import progress_bar

    configure_libraries()
    dataset = prepare(config)
    from trainer.training.launcher import run_training

    with progress_bar("training") as bar:
        return run_training(config, bar.set, dataset)


def cross_validate(config: Config, *, ensemble: bool = True) -> "CrossValidation":
    """Train and evaluate a network for each of the data.folds folds, or continue.

    Args:
        config: The settings.
        ensemble: Write a bundle whose probabilities are the means of those of all folds.

    Returns:
        The metrics of every patient, by the network that was not trained on the patient: `table()`
        has one row per patient, `estimate_of("dice")` the mean with its interval; `bundle` is the
        address of the ensemble.

    Raises:
        UserError: A fold cannot be trained or evaluated; the message names it.

    Example:
        >>> config = trainer.load_config("configs/demo.toml", data={"folds": 4})
        >>> trainer.cross_validate(config).estimate_of("dice").interval
    """
    from contract.cli.log_setup import configure_libraries
    from contract.cli.progress_bar import progress_bar

    configure_libraries()
    from trainer.cross_validation import folds

    with progress_bar("slices") as bar:
        runs = folds.prepare_folds(config, bar.set)
    with progress_bar("training folds") as bar:
        return folds.cross_validate(config, runs, bar.set, ensemble=ensemble)


def tune_folds(config: Config, output: str | Path) -> "TunedFolds":
    """Write the ensemble of the folds of a cross-validation, tuned on the patients of all folds.

    Args:
        config: The settings of a finished cross-validation. Of [predict], only batch_size counts:
            the choice starts from the settings of the training.
        output: The folder or s3:// prefix for the ensemble.

    Returns:
        `manifest.tried_settings`, what was tried and chosen; `dice`, the mean Dice of all patients
        with what was chosen; `nested_dice`, that of each fold with settings that were chosen on the
        others, starting from the defaults.

    Raises:
        UserError: The cross-validation is not finished, there is a bundle at the output, or a slice
            or a bundle cannot be read or written.

    Example:
        >>> config = trainer.load_config("configs/demo.toml", data={"folds": 4})
        >>> trainer.tune_folds(config, "segfleet-data/tuned").nested_dice
    """
    from contract.bundle import check_no_bundle
    from contract.cli.log_setup import configure_libraries
    from contract.cli.progress_bar import progress_bar
    from contract.storage import open_storage

    configure_libraries()
    destination = open_storage(str(output))
    check_no_bundle(destination)
    from trainer.cross_validation.folds import prepare_trained_folds

    with progress_bar("slices") as bar:
        runs = prepare_trained_folds(config, bar.set)
    from trainer.cross_validation.fold_tuning import tune_folds as write_ensemble

    name, batch_size = Path(destination.url).name, config.predict.batch_size
    with progress_bar("tuning") as bar:
        return write_ensemble(runs, name, destination, batch_size, bar.set)


def evaluate(
    reference: str,
    overrides: Sequence[str] = (),
    *,
    split: "Split" = "test",
    output: str | None = None,
    save_masks: bool = False,
    surface_tolerance: float = SURFACE_TOLERANCE,
    storage_root: str = Storage().root,
    **settings: Any,
) -> "Evaluation":
    """Evaluate a bundle by patient on a split of its slices; writes tables, images and a report.

    The settings are those of the bundle; override data.root if the slices have moved.

    Args:
        reference: A bundle: its folder or s3:// address, NAME@STAGE or NAME@VERSION.
        overrides: Settings that replace those of the bundle, as on the command line: storage.*,
            predict.batch_size, or data.* that are not part of its graph.
        split: "train", "valid" or "test".
        output: Folder or s3:// prefix for the files; None: next to the bundle's run.
        save_masks: Write the predicted masks too.
        surface_tolerance: The tolerance of the surface Dice: mm if the spacing of the slices is
            known, else pixels.
        storage_root: Folder or s3:// address with the registry that knows the name.
        **settings: Settings that replace those of the bundle, as for load_config.

    Returns:
        The scores of slices and patients; `table()` has one row per patient.

    Raises:
        ConfigError: A setting cannot be changed for an evaluation.
        DataError: The split is empty, or the network was trained on a patient of the split.
        BundleError, RegistryError, StorageError: The bundle or a slice cannot be read.

    Example:
        >>> evaluation = trainer.evaluate(run.bundle)
        >>> evaluation.summary_of("dice").mean
    """
    from contract.cli.log_setup import configure_libraries
    from contract.cli.progress_bar import progress_bar
    from contract.registry import open_bundle
    from trainer.evaluation.bundle_config import load_bundle_config, report_storage

    bundle = open_bundle(reference, storage_root)
    config = load_bundle_config(bundle, overrides, settings)
    dataset = prepare(config)
    destination = report_storage(bundle, dataset, split, output)
    configure_libraries()
    from trainer.evaluation.evaluate import evaluate as evaluate_split
    from trainer.evaluation.report import write_report

    with progress_bar(f"evaluating {split}", len(dataset.select(split))) as bar:
        evaluation = evaluate_split(
            bundle,
            dataset,
            split,
            config.data,
            config.predict,
            destination,
            bar.set,
            save_masks,
            surface_tolerance,
        )
    write_report(
        bundle,
        evaluation,
        config,
        destination,
        is_phantom=config.data.source == "phantom",
    )
    return evaluation


def compare(
    first: str,
    second: str,
    overrides: Sequence[str] = (),
    *,
    split: "Split" = "test",
    output: str | None = None,
    surface_tolerance: float = SURFACE_TOLERANCE,
    storage_root: str = Storage().root,
    **settings: Any,
) -> "Comparison":
    """Compare two bundles, A and B, on the same patients of a split; writes tables and a report.

    The slices are those of the first bundle's settings; override data.root if they have moved.

    Args:
        first: A: its folder or s3:// address, NAME@STAGE or NAME@VERSION.
        second: B.
        overrides: Settings that replace those of the bundles, as for evaluate.
        split: "train", "valid" or "test".
        output: Folder or s3:// prefix for the files; None: in <storage.root>/comparisons.
        surface_tolerance: The tolerance of the surface Dice: mm if the spacing of the slices is
            known, else pixels.
        storage_root: Folder or s3:// address with the registry that knows the names.
        **settings: Settings that replace those of the bundles, as for load_config.

    Returns:
        `table()` has one row per patient and class, `summary_of("dice")` the means, the mean of B
        minus A with its interval, and Wilcoxon's signed-rank test.

    Raises:
        ConfigError: A setting cannot be changed for an evaluation.
        DataError: The bundles have different classes, the split is empty, or one of the networks
            was trained on a patient of the split.
        BundleError, RegistryError, StorageError: A bundle or a slice cannot be read.

    Example:
        >>> comparison = trainer.compare("demo@1", "demo@2")
        >>> comparison.summary_of("dice").difference.interval
    """
    from contract.cli.log_setup import configure_libraries
    from contract.cli.progress_bar import progress_bar
    from contract.registry import open_bundle
    from contract.storage import open_storage
    from trainer.evaluation.bundle_config import load_bundle_config

    bundles = [open_bundle(reference, storage_root) for reference in (first, second)]
    configs = [load_bundle_config(bundle, overrides, settings) for bundle in bundles]
    dataset = prepare(configs[0])
    configure_libraries()
    from trainer.evaluation.compare import ComparedBundle, comparison_name
    from trainer.evaluation.compare import compare as compare_bundles

    root = open_storage(configs[0].storage.root)
    destination = root.child(f"comparisons/{comparison_name(bundles, dataset, split)}")
    if output is not None:
        destination = open_storage(output)
    a, b = map(ComparedBundle, (first, second), bundles, configs)
    with progress_bar(f"comparing {split}", 2 * len(dataset.select(split))) as bar:
        return compare_bundles(a, b, dataset, split, destination, bar.set, surface_tolerance)
