"""`segfleet sweep|leaderboard`: run a sweep, and show its leaderboard."""

from typer import Exit, echo

import tuning
from contract.cli.app import create_app, example_epilog, load_settings, run_app
from contract.cli.options import ConfigFile, Lenient, Overrides, ShowConfig, Verbose

app = create_app("Search settings with Ray Tune, and register the best network.")


@app.command(epilog=example_epilog("segfleet sweep configs/demo.toml sweep.num_samples=4"))
def sweep(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Run or resume a sweep, and register its best network.

    The trials are those of [sweep] in CONFIG.
    """
    chosen = load_settings(config, overrides, show_config, lenient=lenient)
    from tuning import report

    try:
        result = tuning.run_sweep(chosen)
    except KeyboardInterrupt:
        from tuning.trial_store import read_trials, sweep_storage

        storage = sweep_storage(chosen)
        count = sum(trial.status == "completed" for trial in read_trials(storage))
        echo(
            f"interrupted: {count} completed trials and every finished epoch are kept in "
            f"{storage.url}; the same command resumes the sweep.",
            err=True,
        )
        raise Exit(130) from None
    echo(report.leaderboard_text(result.trials, chosen.train.monitor))
    echo(report.describe_source(chosen))
    echo(f"leaderboard and plots: {result.storage_url}")
    echo(f"settings of the best trial: {result.storage_url}/best_trial.toml")
    echo(f"bundle of the best trial: {result.version.name}@{result.version.version}")


@app.command(epilog=example_epilog("segfleet leaderboard configs/demo.toml"))
def leaderboard(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Show the trials of a sweep, running or finished.

    Does not need a cluster.
    """
    chosen = load_settings(config, overrides, show_config, lenient=lenient)
    from tuning import report
    from tuning.sweep import read_leaderboard

    echo(report.leaderboard_text(read_leaderboard(chosen), chosen.train.monitor))


if __name__ == "__main__":
    run_app(app)
