"""Which trials receive more epochs: asynchronous successive halving (ASHA), by promotion.

Li et al. 2020, arXiv:1810.05934, algorithm 2. A trial trains up to its next rung and pauses there.
It is promoted to the following rung when it is among the best 1 / reduction_factor of all trials
that have reached its rung, immediately or later. No trial waits for slower trials.

These are pure functions of the recorded trials: a new driver decides as the old one would have.
"""

from collections.abc import Sequence

from contract.config import Sweep, Train
from trainer.components import lr_schedule
from tuning.trial_store import Trial


def first_rung(sweep: Sweep, train: Train) -> int:
    """Epochs that every trial may train."""
    if not sweep.early_stopping:
        return train.epochs
    return min(sweep.grace_period, train.epochs)


def all_rungs(sweep: Sweep, train: Train) -> list[int]:
    """The epochs of every rung; the last is train.epochs."""
    rungs = [first_rung(sweep, train)]
    while rungs[-1] < train.epochs:
        rungs.append(next_rung(rungs[-1], sweep, train))
    return rungs


def next_rung(rung: int, sweep: Sweep, train: Train) -> int:
    """Epochs in total that a trial may train after it was promoted from a rung."""
    return min(rung * sweep.reduction_factor, train.epochs)


def promotable(
    trials: Sequence[Trial], sweep: Sweep, train: Train, idle: bool = False
) -> list[Trial]:
    """The paused trials that may continue: from the highest rung down, the best first.

    Args:
        trials: All trials of the sweep.
        sweep: The settings of the sweep.
        train: The training settings: epochs and the monitored metric.
        idle: Whether there is nothing else to run. Then the best trial of a rung may continue
            however few trials have reached it, so that at least one trial trains to the end.
    """
    if not sweep.early_stopping:
        return []
    promoted = []
    for rung in sorted({trial.budget_epochs for trial in trials}, reverse=True):
        reached = [trial for trial in trials if len(trial.history) >= rung <= trial.budget_epochs]
        reached.sort(key=lambda trial: _rank(trial, rung, train.monitor))
        best = reached[: len(reached) // sweep.reduction_factor]
        if idle and all(trial.status == "failed" for trial in best):
            best = [trial for trial in reached if trial.status != "failed"][:1]
        promoted += [trial for trial in best if _is_waiting(trial, rung, train)]
    return promoted


def _is_waiting(trial: Trial, rung: int, train: Train) -> bool:
    return trial.status == "paused" and trial.budget_epochs == rung < train.epochs


def _rank(trial: Trial, rung: int, monitor: str) -> tuple[float, int]:
    """Sort key: the best score up to the rung, as a bundle holds the best epoch."""
    scores = trial.scores(monitor)[:rung]
    return -max(lr_schedule.score_sign(monitor) * score for score in scores), trial.number
