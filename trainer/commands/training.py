"""Commands that train networks."""

from typing import Annotated

import typer

import trainer
from contract.cli.app import create_command_group, example_epilog, load_settings
from contract.cli.options import ConfigFile, Lenient, Overrides, ShowConfig, Verbose
from contract.config import Config
from contract.plurals import pluralize

app = create_command_group()

WithEnsemble = Annotated[
    bool, typer.Option("--ensemble/--no-ensemble", help="Write the ensemble of all folds.")
]


@app.command(epilog=example_epilog("segfleet train configs/demo.toml train.epochs=3"))
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Train a network on Ray, or resume the run of this name.

    Writes a bundle at the end.
    """
    chosen = load_settings(config, overrides, show_config, lenient=lenient)
    try:
        result = trainer.train(chosen)
    except KeyboardInterrupt:
        typer.echo(_interruption(chosen), err=True)
        raise typer.Exit(130) from None
    monitor = chosen.train.monitor
    typer.echo(f"epochs: {len(result.history)}")
    typer.echo(f"best: epoch {result.best['epoch']:.0f}, {monitor} {result.best[monitor]:.4f}")
    typer.echo(f"run: {result.run}")
    typer.echo(f"bundle: {result.bundle}")


@app.command(
    "cross-validate",
    epilog=example_epilog("segfleet cross-validate configs/demo.toml data.folds=4"),
)
def cross_validate(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    ensemble: WithEnsemble = True,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Train a network for each fold, and evaluate all patients.

    Every patient of the train and valid splits is evaluated by the network that was not trained on
    the patient. Folds that are finished are not trained again. Writes a report, and the ensemble of
    all folds as a bundle.
    """
    from trainer.cross_validation.results import format_results

    chosen = load_settings(config, overrides, show_config, lenient=lenient)
    try:
        result = trainer.cross_validate(chosen, ensemble=ensemble)
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command continues with the finished epochs.", err=True)
        raise typer.Exit(130) from None
    typer.echo(format_results(result))
    typer.echo(f"report: {result.output}/report.html")
    if result.bundle:
        typer.echo(f"bundle: {result.bundle}")


def _interruption(config: Config) -> str:
    """What an interrupted training has kept."""
    from trainer.training import run_store

    run = run_store.run_storage(config)
    epochs = run_store.count_epochs(run)
    kept = f"{pluralize(epochs, 'finished epoch')} of {config.train.epochs}"
    return (
        f"interrupted: {kept} are kept in {run.url}; the same command resumes the training."
        if epochs
        else f"interrupted before the first epoch of run {config.run.name} was finished."
    )
