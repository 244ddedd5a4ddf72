"""`python -m tuning run|leaderboard`: search settings, and see how a search stands."""

import typer

from contract.cli.app import (
    ConfigFile,
    Overrides,
    ShowConfig,
    Verbose,
    create_app,
    example_epilog,
    load_settings,
    progress,
)
from contract.cli.app import run_app as run_app

app = create_app("Search settings with Ray Tune, and register the best network that was found.")


@app.command(epilog=example_epilog("python -m tuning run configs/demo.toml sweep.num_samples=4"))
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    verbose: Verbose = False,
) -> None:
    """Try the settings of [sweep], keep the best; the same command continues after a kill."""
    chosen = load_settings(config, overrides, show_config)
    from tuning import report, sweep

    with progress(f"sweep {chosen.run.name}", chosen.sweep.num_samples) as advance:
        result = sweep.run_sweep(chosen, advance.set)
    typer.echo(report.leaderboard_text(result.trials, chosen.train.monitor))
    typer.echo(report.source(chosen))
    typer.echo(f"leaderboard and plots in {result.place}")
    typer.echo(f"the winner's settings: {result.place}/winner.toml")
    typer.echo(f"its bundle: {result.version.name}@{result.version.version}")


@app.command(epilog=example_epilog("python -m tuning leaderboard configs/demo.toml"))
def leaderboard(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    verbose: Verbose = False,
) -> None:
    """Show how a sweep stands, running or not; needs no cluster."""
    chosen = load_settings(config, overrides, show_config)
    from tuning import report, sweep

    typer.echo(report.leaderboard_text(sweep.read_leaderboard(chosen), chosen.train.monitor))


if __name__ == "__main__":
    run_app(app)
