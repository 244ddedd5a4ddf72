"""Learning rate, early stopping and the best epoch, as pure functions of the history of scores.

They have no state: a resumed run evaluates them on the history in its checkpoint and decides as an
uninterrupted run would.
"""

import math
from collections.abc import Sequence

from contract.config import Train

# Of one_cycle: the epochs, as a fraction, in which the learning rate rises, and what it starts at
# and ends at, as a fraction of the maximum.
_RISE, _CYCLE_START, _CYCLE_END = 0.3, 1 / 25, 1e-4


def score_sign(monitor: str) -> int:
    """+1 if a higher score is better, -1 if a lower one is."""
    return -1 if monitor.endswith("loss") else 1


def best_epoch(scores: Sequence[float], monitor: str) -> int:
    """Index of the best score; the earliest of equals."""
    return max(range(len(scores)), key=lambda epoch: score_sign(monitor) * scores[epoch])


def should_stop(scores: Sequence[float], train: Train) -> bool:
    """Whether the score has not improved for train.patience epochs."""
    if train.patience is None or not scores:
        return False
    return len(scores) - 1 - best_epoch(scores, train.monitor) >= train.patience


def is_finished(scores: Sequence[float], train: Train) -> bool:
    """Whether nothing is left to train: all epochs have a score, or training stopped early."""
    return len(scores) >= train.epochs or should_stop(scores, train)


def count_reductions(scores: Sequence[float], train: Train) -> int:
    """How often the plateau schedule has reduced the learning rate so far."""
    reductions, waited, best = 0, 0, -math.inf
    for score in (score_sign(train.monitor) * score for score in scores):
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited == train.plateau_patience:
            reductions, waited = reductions + 1, 0
    return reductions


def encoder_lr_factor(progress: float, train: Train) -> float:
    """By what the learning rate of the encoder is multiplied; 0: it is frozen.

    progress: epochs done, as for learning_rate.
    """
    return 0.0 if progress < train.freeze_encoder_epochs else train.encoder_lr_factor


def learning_rate(progress: float, scores: Sequence[float], train: Train) -> float:
    """The learning rate at a point in training.

    progress: epochs done, as a fraction (2.5 is the middle of the third epoch); scores: the
    monitored score of every finished epoch. Polynomial decay with power 0.9 is nnU-Net's
    (Isensee 2021); cosine is Loshchilov & Hutter 2017 without restarts; one_cycle is Smith 2018
    (arXiv:1803.09820) with cosines instead of lines.
    """
    if progress < train.warmup_epochs:
        return train.learning_rate * progress / train.warmup_epochs
    remaining = 1.0 - (progress - train.warmup_epochs) / (train.epochs - train.warmup_epochs)
    match train.lr_schedule:
        case "constant":
            factor = 1.0
        case "plateau":
            reduced = train.plateau_factor ** count_reductions(scores, train)
            factor = max(reduced, train.plateau_min_lr / train.learning_rate)
        case "polynomial":
            factor = remaining**0.9
        case "cosine":
            factor = _cosine_between(0.0, 1.0, remaining)
        case "one_cycle":
            done = 1.0 - remaining
            factor = (
                _cosine_between(_CYCLE_START, 1.0, done / _RISE)
                if done < _RISE
                else _cosine_between(1.0, _CYCLE_END, (done - _RISE) / (1.0 - _RISE))
            )
    return train.learning_rate * factor


def _cosine_between(start: float, end: float, position: float) -> float:
    """From start (position 0) to end (position 1) along half a period of a cosine."""
    return start + (end - start) * (1.0 - math.cos(math.pi * position)) / 2.0
