"""Which values the trials of a sweep try.

A draw is a function of (seed, trial number, what earlier trials measured) and of nothing else: it
keeps no state, so a sweep that was killed goes on as if it had not been.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from contract.config import Config, ParameterSpec, Scalar
from contract.errors import ConfigError
from trainer.training.run_store import flatten

Values = Mapping[str, Scalar]
Direction = Literal["maximize", "minimize"]

# What each trial applies by itself, and what leaves the scores of trials comparable. The rest of
# [data] decides which slices and masks there are, once for all trials; [predict] comes after them.
_SEARCHABLE = ("network.", "train.", "data.augment.", "data.intensity_")
_NOT_SEARCHABLE = {
    "train.keep_checkpoints": "does not change what is trained",
    "train.monitor": "is what trials are compared by",
}
# Draws of one trial before the space is taken for exhausted.
_ATTEMPTS = 100
# Trials TPE draws at random before it learns from them; Optuna's 10 are a whole small sweep.
_RANDOM_FIRST = 5
_STATES = {
    "running": TrialState.RUNNING,
    "finished": TrialState.COMPLETE,
    # Optuna ranks a pruned trial by how far it came, then by its score there.
    "stopped": TrialState.PRUNED,
    "out of time": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class Observation:
    """What is known of an earlier trial.

    state: as a trial's record has it; scores: the monitored score of each of its epochs; best:
    the best of them.
    """

    values: Values
    state: str
    scores: tuple[float, ...] = ()
    best: float | None = None


def check_space(config: Config) -> None:
    """Raise ConfigError where sweep.space cannot be searched."""
    if not config.sweep.space:
        raise ConfigError(
            "sweep.space is empty: name at least one setting to search, such as "
            '"train.learning_rate" = { loguniform = [1e-4, 1e-2] }.'
        )
    deciding = flatten(config.training_settings())
    for key in config.sweep.space:
        if key not in deciding or key in _NOT_SEARCHABLE:
            why = _NOT_SEARCHABLE.get(key, "does not change what is trained")
            raise ConfigError(f"sweep.space: {key} {why} and cannot be searched.")
        if not key.startswith(_SEARCHABLE):
            raise ConfigError(
                f"sweep.space: {key} is the same for all trials of a sweep; search settings of "
                "[network], [train] or [data.augment], data.intensity_low or data.intensity_high."
            )
        if key == "train.loss" and config.train.monitor == "val_loss":
            raise ConfigError(
                "sweep.space: train.loss decides what val_loss measures, so trials would not "
                'compare: set train.monitor to another score, such as "val_dice_coef".'
            )


def distributions(space: Mapping[str, ParameterSpec]) -> dict[str, BaseDistribution]:
    """The space as Optuna knows it, in the order of the settings' names."""
    return {key: _distribution(space[key]) for key in sorted(space)}


def _distribution(span: ParameterSpec) -> BaseDistribution:
    if span.choice is not None:
        return CategoricalDistribution(span.choice)
    if span.uniform is not None:
        return FloatDistribution(*span.uniform)
    if span.loguniform is not None:
        return FloatDistribution(*span.loguniform, log=True)
    assert span.integer is not None, "a Range has exactly one of its keys"
    return IntDistribution(*span.integer)


def suggest(
    space: Mapping[str, ParameterSpec],
    search: Literal["random", "tpe"],
    direction: Direction,
    seed: int,
    number: int,
    history: Sequence[Observation],
) -> dict[str, Scalar] | None:
    """The values of trial `number`; None where every draw repeats an earlier trial.

    past: the trials before it. random looks only at which values they had, tpe (Bergstra 2011)
    also at their scores.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = distributions(space)
    frozen = [_frozen(trial, known) for trial in history] if search == "tpe" else []
    tried = [dict(trial.values) for trial in history]
    for attempt in range(_ATTEMPTS):
        sampler = _sampler(search, (seed, number, attempt))
        study = optuna.create_study(sampler=sampler, direction=direction)
        study.add_trials(frozen)
        values = study.ask(known).params
        if values not in tried:
            return values
    return None


def _sampler(search: Literal["random", "tpe"], key: tuple[int, int, int]) -> BaseSampler:
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    if search == "random":
        return RandomSampler(seed=seed)
    # The liar takes running trials for poor ones, so that trials side by side differ.
    return TPESampler(seed=seed, n_startup_trials=_RANDOM_FIRST, constant_liar=True)


def _frozen(past: Observation, known: Mapping[str, BaseDistribution]) -> FrozenTrial:
    state = _STATES[past.state]
    if state is TrialState.PRUNED and past.best is None:
        state = TrialState.FAIL
    return create_trial(
        params=dict(past.values),
        distributions=dict(known),
        value=past.best if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        intermediate_values=dict(enumerate(past.scores, start=1)),
        state=state,
    )
