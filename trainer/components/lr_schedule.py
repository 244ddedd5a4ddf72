"""The decisions of training over time, as pure functions of the history of scores.

They keep no state of their own: a resumed run replays them over the history of its checkpoint and
decides as an uninterrupted one would.
"""

import math
from collections.abc import Sequence

from contract.config import Train


def score_sign(monitor: str) -> int:
    """+1 where a higher score is better, -1 where a lower one is."""
    return -1 if monitor.endswith("loss") else 1


def best_epoch(scores: Sequence[float], monitor: str) -> int:
    """Index of the best score; the earlier one of equals."""
    return max(range(len(scores)), key=lambda epoch: score_sign(monitor) * scores[epoch])


def should_stop(scores: Sequence[float], train: Train) -> bool:
    """Whether the score has not improved for train.patience epochs."""
    if train.patience is None or not scores:
        return False
    return len(scores) - 1 - best_epoch(scores, train.monitor) >= train.patience


def count_reductions(scores: Sequence[float], train: Train) -> int:
    """How often the plateau has cut the learning rate so far."""
    cuts, waited, best = 0, 0, -math.inf
    for score in (score_sign(train.monitor) * score for score in scores):
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited == train.plateau_patience:
            cuts, waited = cuts + 1, 0
    return cuts


def learning_rate(progress: float, scores: Sequence[float], train: Train) -> float:
    """The learning rate at a point of the training.

    progress: epochs done, as a fraction (2.5 is the middle of the third epoch); scores: the
    monitored score of every finished epoch. Polynomial decay with power 0.9 is nnU-Net's
    (Isensee 2021); cosine is Loshchilov & Hutter 2017 without restarts.
    """
    if progress < train.warmup_epochs:
        return train.learning_rate * progress / train.warmup_epochs
    left = 1.0 - (progress - train.warmup_epochs) / (train.epochs - train.warmup_epochs)
    match train.lr_schedule:
        case "constant":
            factor = 1.0
        case "plateau":
            factor = train.plateau_factor ** count_reductions(scores, train)
        case "polynomial":
            factor = left**0.9
        case "cosine":
            factor = (1.0 - math.cos(math.pi * left)) / 2.0
    return train.learning_rate * factor
