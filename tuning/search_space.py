"""Which values the trials of a sweep try.

The values of a trial are a function of (seed, trial number, results of earlier trials) and of
nothing else. There is no state, so a resumed sweep continues as an uninterrupted one would.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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

from contract.config import (
    Config,
    ParameterSpec,
    SettingValue,
    Sweep,
    check_searched_networks,
    encoder_weights,
)
from contract.errors import ConfigError
from trainer.training.run_store import flatten

Values = Mapping[str, SettingValue]
Direction = Literal["maximize", "minimize"]
SearchAlgorithm = Literal["random", "tpe"]

# Settings that each trial applies itself and that keep the scores of trials comparable. The rest of
# [data] determines the slices and masks, once for all trials; [predict] is applied after training.
_SEARCHABLE = ("network.", "train.", "data.augment.", "data.intensity_", "data.normalize")
_NOT_SEARCHABLE = {
    "train.keep_checkpoints": "does not change what is trained",
    "train.monitor": "is the score by which trials are compared",
    "network.encoder_weights": "is a file that fits one encoder",
    "train.start_from": "is checked against the patients once, for all trials,",
}
# The loss, and the outputs of a network that it is computed from.
_LOSS_SETTINGS = {
    "train.loss",
    "train.dice_per_sample",
    "train.label_smoothing",
    "train.focal_gamma",
    "train.tversky_alpha",
    "train.tversky_beta",
    "train.boundary_width",
    "network.name",
    "network.deep_supervision",
    "network.classification_guided",
}
# What other settings may depend on.
_NETWORK = "network.name"
# Attempts to find new values for a trial before the search space counts as exhausted.
_MAX_ATTEMPTS = 100
# Random trials before TPE uses results; Optuna's default of 10 is a complete small sweep.
_STARTUP_TRIALS = 5
_OPTUNA_STATES = {
    "running": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    # Optuna ranks a pruned trial by its last step, then by its score there.
    "paused": TrialState.PRUNED,
    "out of time": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class Observation:
    """What is known of an earlier trial.

    status: as in its record; scores: the monitored metric of each epoch; best: the best of them.
    """

    values: Values
    status: str
    scores: tuple[float, ...] = ()
    best: float | None = None


def check_space(config: Config) -> None:
    """Raise ConfigError if sweep.space cannot be searched."""
    if not config.sweep.space:
        raise ConfigError(
            "sweep.space is empty: name at least one setting to search, such as "
            '"train.learning_rate" = { loguniform = [1e-4, 1e-2] }.'
        )
    check_searched_networks(config)
    check_folds(config)
    training_settings = flatten(config.training_settings())
    for key in config.sweep.space:
        known = key in training_settings or key.startswith("network.")
        if not known or key in _NOT_SEARCHABLE:
            reason = _NOT_SEARCHABLE.get(key, "does not change what is trained")
            raise ConfigError(f"sweep.space: {key} {reason} and cannot be searched.")
        if not key.startswith(_SEARCHABLE):
            raise ConfigError(
                f"sweep.space: {key} is the same for all trials of a sweep; search settings of "
                "[network], [train] or [data.augment], data.normalize, data.intensity_low or "
                "data.intensity_high."
            )
        if key == "network.variant" and encoder_weights(config.network):
            raise ConfigError(
                f"sweep.space: {key} cannot be searched with network.encoder_weights, a file that "
                "fits one variant: remove one of the two."
            )
        if key in _LOSS_SETTINGS and config.train.monitor == "val_loss":
            raise ConfigError(
                f"sweep.space: {key} determines what val_loss measures, so trials could not be "
                'compared: set train.monitor to another score, such as "val_dice_coef".'
            )


def check_folds(config: Config) -> None:
    """Raise ConfigError if trials cannot be trained on folds, as sweep.cross_validate wants."""
    if not config.sweep.cross_validate:
        return
    if not config.data.folds:
        raise ConfigError(
            "sweep.cross_validate = true trains on all folds: set data.folds to their number, such "
            "as data.folds=4."
        )
    if config.train.patience is not None:
        raise ConfigError(
            f"train.patience = {config.train.patience} would stop the folds of a trial at "
            "different epochs, which have no mean: remove it, or set sweep.cross_validate = false. "
            "sweep.early_stopping stops trials by their means."
        )
    workers = config.sweep.num_workers or config.train.num_workers
    if workers > 1:
        raise ConfigError(
            f"sweep.cross_validate = true needs one worker per trial, not {workers}: set "
            "sweep.num_workers=1."
        )


def create_distributions(
    space: Mapping[str, ParameterSpec], network: SettingValue | None = None
) -> dict[str, BaseDistribution]:
    """The search space in Optuna's terms, sorted by the names of the settings.

    Without those that do not count for a network. A choice is the index of its value, because
    Optuna has no choices that are pairs.
    """
    return {
        key: _create_distribution(space[key])
        for key in sorted(space)
        if (networks := space[key].networks) is None or network in networks
    }


def _create_distribution(spec: ParameterSpec) -> BaseDistribution:
    if spec.choice is not None:
        return CategoricalDistribution(range(len(spec.choice)))
    if spec.uniform is not None:
        return FloatDistribution(*spec.uniform)
    if spec.loguniform is not None:
        return FloatDistribution(*spec.loguniform, log=True)
    assert spec.integer is not None, "a ParameterSpec has exactly one of its keys"
    return IntDistribution(*spec.integer)


def suggest(
    sweep: Sweep, direction: Direction, seed: int, number: int, history: Sequence[Observation]
) -> dict[str, SettingValue] | None:
    """The values of a trial.

    Args:
        sweep: The search space and the search algorithm.
        direction: Whether a higher or a lower score is better.
        seed: The seed of the sweep.
        number: The number of the trial.
        history: The trials before it. "random" uses only their values, "tpe" (Bergstra 2011) also
            their scores.

    Returns:
        {"section.key": value}, or None if every attempt repeats the values of an earlier trial.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    use_scores = sweep.search_algorithm == "tpe"
    frozen_trials = [_freeze(seen, sweep.space) for seen in history] if use_scores else []
    tried = [dict(seen.values) for seen in history]
    for attempt in range(_MAX_ATTEMPTS):
        sampler = _create_sampler(sweep.search_algorithm, (seed, number, attempt))
        study = optuna.create_study(sampler=sampler, direction=direction)
        study.add_trials(frozen_trials)
        values = _sample(study, sweep.space)
        if values not in tried:
            return values
    return None


def _sample(study: optuna.Study, space: Mapping[str, ParameterSpec]) -> dict[str, SettingValue]:
    """The values of a new trial: the network if it is searched, then what counts for it."""
    network = {key: value for key, value in space.items() if key == _NETWORK}
    trial = study.ask(create_distributions(network))
    values = {key: _from_param(space[key], param) for key, param in trial.params.items()}
    for key, distribution in create_distributions(space, values.get(_NETWORK)).items():
        if key not in values:
            values[key] = _from_param(space[key], _suggest(trial, key, distribution))
    return dict(sorted(values.items()))


def _suggest(trial: optuna.Trial, key: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution():
            return trial.suggest_categorical(key, distribution.choices)
        case FloatDistribution():
            low, high = distribution.low, distribution.high
            return trial.suggest_float(key, low, high, log=distribution.log)
        case IntDistribution():
            return trial.suggest_int(key, distribution.low, distribution.high)
        case _:
            raise AssertionError(distribution)


def _create_sampler(algorithm: SearchAlgorithm, key: tuple[int, int, int]) -> BaseSampler:
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    if algorithm == "random":
        return RandomSampler(seed=seed)
    # The constant liar assumes that running trials are poor, so that concurrent trials differ.
    return TPESampler(seed=seed, n_startup_trials=_STARTUP_TRIALS, constant_liar=True)


def _from_param(spec: ParameterSpec, param: Any) -> SettingValue:
    return param if spec.choice is None else spec.choice[param]


def _to_param(spec: ParameterSpec, value: SettingValue) -> Any:
    # By repr, because 1, 1.0 and True are equal.
    return value if spec.choice is None else [*map(repr, spec.choice)].index(repr(value))


def _freeze(seen: Observation, space: Mapping[str, ParameterSpec]) -> FrozenTrial:
    state = _OPTUNA_STATES[seen.status]
    if state is TrialState.PRUNED and seen.best is None:
        state = TrialState.FAIL
    return create_trial(
        params={key: _to_param(space[key], value) for key, value in seen.values.items()},
        distributions=create_distributions(space, seen.values.get(_NETWORK)),
        value=seen.best if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        intermediate_values=dict(enumerate(seen.scores, start=1)),
        state=state,
    )
