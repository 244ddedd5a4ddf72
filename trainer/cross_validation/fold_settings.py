"""The settings of the folds of a cross-validation, and their names in messages.

Apart from `folds`, so that the processes of trials do not import what draws reports.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from contract.config import Config
from contract.errors import ConfigError, UserError


def fold_configs(config: Config) -> list[Config]:
    """The settings of each fold's run; ConfigError without data.folds, or if one is selected."""
    if not config.data.folds:
        raise ConfigError("data.folds is 0: set the number of folds, such as data.folds=4.")
    if config.data.fold != 1:
        raise ConfigError(
            f"data.fold = {config.data.fold} selects one fold for `segfleet train`, and a "
            "cross-validation trains all of them: remove it."
        )
    return [
        config.with_values({"data.fold": number, "run.name": f"{config.run.name}-fold{number}"})
        for number in range(1, config.data.folds + 1)
    ]


def fold_name(config: Config) -> str:
    """How messages name the fold of some settings: "fold 2 of 4"."""
    return f"fold {config.data.fold} of {config.data.folds}"


@contextmanager
def named_fold(config: Config) -> Iterator[None]:
    """Put the name of the fold in front of the message of a UserError of the block."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{fold_name(config)}: {error}") from error
