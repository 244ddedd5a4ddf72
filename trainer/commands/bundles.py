"""Commands that make bundles of other bundles or of weights."""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

import trainer
from contract.cli.app import create_command_group, example_epilog, load_settings
from contract.cli.options import (
    DEFAULT_STORAGE_ROOT,
    BundleReference,
    ConfigFile,
    Lenient,
    Overrides,
    StorageRoot,
    Verbose,
)
from contract.cli.progress_bar import progress_bar
from contract.storage import open_storage
from trainer.commands.options import BundleOverrides

if TYPE_CHECKING:
    from contract.bundle import Manifest

app = create_command_group()

PredictOverrides = Annotated[
    list[str], typer.Argument(metavar="PREDICT.KEY=VALUE...", help="Settings of the prediction.")
]
BundleOutput = Annotated[
    str, typer.Argument(metavar="OUTPUT", help="Folder or s3:// prefix for the new bundle.")
]
Members = Annotated[
    list[str],
    typer.Argument(metavar="BUNDLE...", help="Two bundles or more: folders, addresses or names."),
]
EnsembleName = Annotated[
    str | None, typer.Option("--name", help="Name in the manifest; absent: that of OUTPUT.")
]
WeightsFile = Annotated[Path, typer.Argument(metavar="WEIGHTS", help="The .h5 file of Keras.")]


@app.command(
    epilog=example_epilog(
        "segfleet export demo@production windows predict.sliding_window=true predict.overlap=0.75"
    )
)
def export(
    reference: BundleReference,
    output: BundleOutput,
    overrides: PredictOverrides,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
    verbose: Verbose = False,
) -> None:
    """Write a bundle with other settings of the prediction.

    It has the weights of the bundle that is named; nothing is trained. The settings are those of
    the section [predict].
    """
    from contract.registry import open_bundle
    from trainer.export.prediction_settings import export_with_settings, load_changed_config

    bundle, destination = open_bundle(reference, storage), open_storage(output)
    config = load_changed_config(bundle, overrides)
    export_with_settings(bundle, config, destination)
    typer.echo(f"bundle: {destination.url}")


@app.command("tune-bundle", epilog=example_epilog("segfleet tune-bundle demo@production tuned"))
def tune_bundle(
    reference: BundleReference,
    output: BundleOutput,
    overrides: BundleOverrides = None,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
    verbose: Verbose = False,
) -> None:
    """Write a bundle with settings tuned on validation patients.

    Tries test-time augmentation, thresholds, largest components and filled holes, and keeps what
    raises the Dice of the validation patients. The weights are those of the bundle that is named.
    """
    from contract.bundle import check_no_bundle
    from contract.registry import open_bundle
    from trainer.evaluation.bundle_config import load_bundle_config

    bundle, destination = open_bundle(reference, storage), open_storage(output)
    check_no_bundle(destination)
    config = load_bundle_config(bundle, overrides or (), {})
    dataset = trainer.prepare(config)
    from trainer.evaluation.prediction_tuning import tune_bundle as write_bundle

    with progress_bar("tuning") as bar:
        manifest = write_bundle(bundle, dataset, config, destination, bar.set)
    _print_tried_settings(manifest)
    typer.echo(f"bundle: {destination.url}")


@app.command(
    "tune-folds",
    epilog=example_epilog("segfleet tune-folds configs/demo.toml tuned data.folds=4"),
)
def tune_folds(
    config: ConfigFile,
    output: BundleOutput,
    overrides: Overrides = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Write the ensemble of all folds, tuned on their patients.

    The same as tune-bundle, after `segfleet cross-validate` with the same settings: every patient
    of the train and valid splits counts, predicted by the network that was not trained on the
    patient. Of [predict], only batch_size is that of the file: the choice starts from the settings
    of the training. Also prints the Dice of nested cross-validation: with settings chosen without
    the fold of the patient, starting from the defaults.
    """
    tuned = trainer.tune_folds(load_settings(config, overrides, lenient=lenient), output)
    _print_tried_settings(tuned.manifest)
    start = tuned.manifest.tried_settings[0].dice
    typer.echo(f"Dice of the patients of all folds: {tuned.dice:.4f}, before {start:.4f}")
    typer.echo(f"nested cross-validation: {tuned.nested_dice:.4f}")
    if tuned.nested_dice < start:
        typer.echo(
            "warning: settings chosen on the other folds are worse than those before; the chosen "
            "ones may be worse for new patients.",
            err=True,
        )
    typer.echo(f"bundle: {open_storage(output).url}")


@app.command(
    "import-weights",
    epilog=example_epilog(
        "segfleet import-weights train_eval_infer.config models/best_model.h5 bundle"
    ),
)
def import_weights(
    config: ConfigFile,
    weights: WeightsFile,
    output: BundleOutput,
    overrides: Overrides = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Write a bundle with the weights of a best_model.h5.

    That is the file of a flexible UNet without normalization that an Antillia project has trained
    (docs/from-antillia.md).
    """
    chosen, destination = load_settings(config, overrides, lenient=lenient), open_storage(output)
    from trainer.training.weights_import import import_weights as write_bundle

    write_bundle(chosen, weights, destination)
    typer.echo(f"bundle: {destination.url}")


@app.command(
    epilog=example_epilog("segfleet ensemble demo@1 demo@2 segfleet-data/both"),
)
def ensemble(
    members: Members,
    output: BundleOutput,
    name: EnsembleName = None,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
    verbose: Verbose = False,
) -> None:
    """Write one bundle that predicts the mean of several.

    The probabilities are the means of those of the members. It is evaluated, registered and served
    like any other bundle.
    """
    from contract.registry import open_bundle

    bundles, destination = [open_bundle(each, storage) for each in members], open_storage(output)
    from trainer.export.ensemble import export_ensemble

    export_ensemble(bundles, name or PurePosixPath(destination.url).name, destination)
    typer.echo(f"bundle: {destination.url}")


def _print_tried_settings(manifest: "Manifest") -> None:
    from trainer.evaluation.prediction_tuning import MIN_GAIN

    typer.echo(f"{'setting':32} {'value':28} {'Dice':>7}")
    for each in manifest.tried_settings:
        chosen = " chosen" if each.chosen else ""
        typer.echo(f"{each.setting:32} {each.value:28} {each.dice:7.4f}{chosen}")
    typer.echo(f"a setting is changed only if its best value gains more than {MIN_GAIN}")
