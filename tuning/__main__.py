"""`python -m tuning run|leaderboard`: search settings, and see how a search stands."""

import typer

from contract.cli.app import (
    ConfigFile,
    Overrides,
    ShowConfig,
    Verbose,
    application,
    example,
    progress,
    settings,
)
from contract.cli.app import run as run_app

app = application("Search settings with Ray Tune, and register the best network that was found.")


@app.command(epilog=example("python -m tuning run configs/demo.toml sweep.trials=4"))
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    verbose: Verbose = False,
) -> None:
    """Try the settings of [sweep], keep the best; the same command continues after a kill."""
    chosen = settings(config, overrides, show_config)
    from tuning import report, sweep

    with progress(f"sweep {chosen.run.name}", chosen.sweep.trials) as advance:
        result = sweep.run(chosen, advance.reach)
    typer.echo(report.leaderboard(result.trials, chosen.train.monitor))
    typer.echo(report.source(chosen))
    typer.echo(f"leaderboard and plots in {result.place}")
    typer.echo(f"the winner's settings: {result.place}/winner.toml")
    typer.echo(f"its bundle: {result.version.name}@{result.version.version}")


@app.command(epilog=example("python -m tuning leaderboard configs/demo.toml"))
def leaderboard(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    verbose: Verbose = False,
) -> None:
    """Show how a sweep stands, running or not; needs no cluster."""
    chosen = settings(config, overrides, show_config)
    from tuning import report, sweep

    typer.echo(report.leaderboard(sweep.recorded(chosen), chosen.train.monitor))


if __name__ == "__main__":
    run_app(app)
