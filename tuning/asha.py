"""Which trials are worth more epochs: asynchronous successive halving, by promotion.

ASHA (Li et al. 2020, arXiv:1810.05934, algorithm 2). A trial is granted epochs up to its next
rung and waits there. It is granted the next ones when it is among the best 1 / reduction_factor of
all that have reached the rung, be it at once or later. Nobody waits for slower trials.

Pure functions of the recorded trials: a new driver decides as the old one would have.
"""

from collections.abc import Sequence

from contract.config import Config
from trainer.components import lr_schedule
from tuning.trial_store import Trial


def first_rung(config: Config) -> int:
    """Epochs that every trial is given."""
    if not config.sweep.early_stopping:
        return config.train.epochs
    return min(config.sweep.grace_period, config.train.epochs)


def next_rung(granted: int, config: Config) -> int:
    """Epochs in all that a trial is given which has done so many and is among the best."""
    return min(granted * config.sweep.reduction_factor, config.train.epochs)


def promotable(trials: Sequence[Trial], config: Config, idle: bool = False) -> list[Trial]:
    """The waiting trials that are to go on: from the highest rung down, the best first.

    idle: there is nothing else to do. Then the best of a rung may go on however few have reached
    it, so that one trial at least is trained to its end.
    """
    if not config.sweep.early_stopping:
        return []
    found = []
    for rung in sorted({trial.budget_epochs for trial in trials}, reverse=True):
        there = [trial for trial in trials if len(trial.history) >= rung <= trial.budget_epochs]
        there.sort(key=lambda trial: _rank(trial, rung, config.train.monitor))
        best = there[: len(there) // config.sweep.reduction_factor]
        if idle and all(trial.state == "failed" for trial in best):
            best = [trial for trial in there if trial.state != "failed"][:1]
        found += [trial for trial in best if _waits(trial, rung, config)]
    return found


def _waits(trial: Trial, rung: int, config: Config) -> bool:
    return trial.state == "stopped" and trial.budget_epochs == rung < config.train.epochs


def _rank(trial: Trial, rung: int, monitor: str) -> tuple[float, int]:
    """By the best score until the rung, as a bundle is of the best epoch; of equals the earlier."""
    scores = trial.scores(monitor)[:rung]
    return -max(lr_schedule.score_sign(monitor) * score for score in scores), trial.number
