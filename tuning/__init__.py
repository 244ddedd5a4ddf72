"""Sweeps with Ray Tune: from a TOML file to a better TOML file.

For notebooks and scripts: load_config, run_sweep and leaderboard (docs/python.md).
May import every other package. The scheduler decides on plain records; tune_callbacks and sweep
connect it to Ray Tune.
"""

from typing import TYPE_CHECKING, Any

from contract.config import Config
from contract.config.loader import load_config

if TYPE_CHECKING:
    from tuning.sweep import SweepResult

__all__ = ["leaderboard", "load_config", "run_sweep"]


def run_sweep(config: Config) -> "SweepResult":
    """Run, or resume, the sweep of these settings, and register the bundle of its best trial.

    It runs on the cluster of cluster.address or RAY_ADDRESS, else on a local one on this machine
    that ends with the sweep.

    Args:
        config: The settings; [sweep] describes the search.

    Returns:
        The finished sweep: `trials`, best first; `best_trial`; `version`, its registered bundle;
        `storage_url`, where the leaderboard, the plots and best_trial.toml are.

    Raises:
        UserError: The sweep cannot run, or no trial produced a score.

    Example:
        >>> result = tuning.run_sweep(tuning.load_config("configs/demo.toml"))
        >>> result.best_trial.values
    """
    from contract.cli.log_setup import configure_libraries
    from contract.cli.progress_bar import progress_bar

    configure_libraries()
    from tuning.sweep import run_sweep as run

    with progress_bar(f"sweep {config.run.name}", config.sweep.num_samples) as bar:
        return run(config, bar.set)


def leaderboard(config: Config) -> list[dict[str, Any]]:
    """The trials of a sweep, running or finished, best first; does not need a cluster.

    Returns:
        One row per trial with its number, status, epochs, score, best epoch and searched settings;
        pandas.DataFrame(rows) is a table of it.

    Example:
        >>> tuning.leaderboard(tuning.load_config("configs/demo.toml"))[0]
    """
    from tuning.report import leaderboard_rows
    from tuning.sweep import read_leaderboard

    return leaderboard_rows(read_leaderboard(config), config.train.monitor)
