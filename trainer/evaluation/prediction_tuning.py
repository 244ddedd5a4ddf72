"""Settings of the prediction, chosen by the Dice of the validation patients.

One setting after the other is tried: zooms, shifts and flips, then the threshold of each class, the
largest component and holes. The best value is kept if the mean Dice by patient is higher by more
than MIN_GAIN than with what was chosen before; otherwise the setting stays as it is. Only the valid
split is used, so the metrics of the test split stay those of new patients.

`choose_settings` decides from any function that measures settings; fold_tuning of cross_validation
gives it one over the patients of all folds.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from statistics import fmean
from typing import Any, NamedTuple, Self

import numpy as np
import tensorflow as tf
import tf_keras as keras

from contract import bundle as bundles
from contract.bundle import Manifest, TriedSetting
from contract.config import Augment, Config, Predict
from contract.config.loader import load_config
from contract.confusion import ConfusionCounts, class_counts, pooled_counts
from contract.imaging.components import process_slice, process_volume
from contract.imaging.intensity_scaling import IntensityScaling
from contract.progress import ProgressCallback, no_progress
from contract.storage import Storage
from trainer.components.class_maps import predicted_mask
from trainer.data.dataset_index import Dataset
from trainer.evaluation.evaluate import check_classes, check_patient_leakage
from trainer.evaluation.predicted_volumes import (
    PredictedVolume,
    check_temporary_space,
    count_bytes,
    predict_volumes,
)
from trainer.evaluation.scores import PatientScore
from trainer.evaluation.slice_reader import (
    Mask,
    Pixels,
    PredictSlices,
    Probability,
    open_reader,
)
from trainer.export.prediction_settings import changed_metadata, fetch_network, load_model
from trainer.export.saved_model import SegmentationModule, export_bundle

MIN_GAIN = 0.001
"""A setting is changed if the mean Dice of the validation patients rises by more than this."""

_ZOOMS = ((1.0,), (0.9, 1.0, 1.1), (0.8, 1.0, 1.25), (0.8, 0.9, 1.0, 1.1, 1.25))
_SHIFTS = ((), (0.02,))
# The closest to one half first, which is chosen if several are equal.
_THRESHOLDS = (0.5, 0.45, 0.55, 0.4, 0.6, 0.35, 0.65, 0.3, 0.7)
_SCOPES = ("off", "slice", "patient")

log = logging.getLogger(__name__)

_Views = tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]]
"""Zooms, shifts and flips."""


class Step(NamedTuple):
    """A setting of [predict], and the values to try."""

    key: str
    """Such as "zooms" or "class_thresholds.liver"."""
    values: Sequence[Any]


def choose_settings(
    predict: Predict, steps: Sequence[Step], measure: Callable[[Predict], float]
) -> tuple[Predict, float, tuple[TriedSetting, ...]]:
    """Choose values for settings of the prediction, one after the other.

    Args:
        predict: The settings to start from.
        steps: The settings and their values, in the order in which they are tried.
        measure: The mean Dice with some settings, 0 to 1.

    Returns:
        The chosen settings, their mean Dice, and everything that was tried, first the settings to
        start from.
    """
    dice = measure(predict)
    tried = [TriedSetting(setting="predict", value="as configured", dice=dice, chosen=True)]
    for step in steps:
        changes = [(value, change_setting(predict, step.key, value)) for value in step.values]
        scores = [(v, other, measure(other)) for v, other in changes if other != predict]
        if not scores:
            continue
        best = max(scores, key=lambda score: score[2])
        is_better = best[2] > dice + MIN_GAIN
        for value, other, score in scores:
            is_chosen = is_better and other == best[1]
            text = json.dumps(value)
            tried.append(
                TriedSetting(
                    setting=f"predict.{step.key}", value=text, dice=score, chosen=is_chosen
                )
            )
        if is_better:
            predict, dice = best[1:]
    return predict, dice, tuple(tried)


def change_setting(predict: Predict, key: str, value: Any) -> Predict:
    """The settings with another value of one of them; key: as in Step."""
    name, _, class_name = key.partition(".")
    if class_name:
        if value == predict.class_threshold(class_name):
            return predict
        value = {**predict.class_thresholds, class_name: value}
    return Predict.model_validate({**predict.model_dump(), name: value})


def reset_settings(predict: Predict, steps: Iterable[Step]) -> Predict:
    """The settings with the default of each that has values to try."""
    names = {step.key.partition(".")[0] for step in steps if step.values}
    defaults = Predict().model_dump(include=names)
    return Predict.model_validate({**predict.model_dump(), **defaults})


def view_steps(augment: Augment) -> list[Step]:
    """The settings that change probabilities. augment: the training's, which decides on flips."""
    flips = [name for name in ("horizontal", "vertical") if getattr(augment, f"flip_{name}")]
    choices = [(name,) for name in flips] + ([tuple(flips)] if len(flips) > 1 else [])
    choices = [(), *choices] if flips else []
    return [Step("zooms", _ZOOMS), Step("shifts", _SHIFTS), Step("flips", choices)]


def mask_steps(classes: Sequence[str]) -> list[Step]:
    """The settings that turn probabilities into masks; classes: the names of the classes."""
    keys = [f"class_thresholds.{name}" for name in classes] if classes[1:] else ["threshold"]
    return [
        *(Step(key, _THRESHOLDS) for key in keys),
        Step("largest_component", _SCOPES),
        Step("fill_holes", _SCOPES),
    ]


def tuning_steps(config: Config) -> list[Step]:
    """All settings that are tried, those that change probabilities first."""
    classes = [each.name for each in config.data.segmentation_classes]
    return [*view_steps(config.data.augment), *mask_steps(classes)]


def compute_patient_dice(
    volumes: Iterable[PredictedVolume], predict: Predict, classes: Sequence[str]
) -> dict[str, float]:
    """The Dice of each patient, the mean over the classes.

    volumes: with the probabilities of the views of the settings.
    """
    counts: dict[str, list[tuple[ConfusionCounts, ...]]] = {}
    thresholds, steps = predict.thresholds(classes), predict.post_processing
    for volume in volumes:
        masks = [
            process_slice(predicted_mask(tf.constant(maps[None]), thresholds)[0].numpy(), steps)
            for maps in volume.probability
        ]
        final = process_volume(np.stack(masks), steps)
        counts.setdefault(volume.patient, []).append(
            class_counts(final, volume.y_true, len(classes))
        )
    result: dict[str, float] = {}
    for patient, each in counts.items():
        pooled = tuple(map(pooled_counts, zip(*each, strict=True)))
        dice = PatientScore(patient, 0, pooled, ()).metric("dice")
        assert dice is not None, "the Dice of a patient is always defined"
        result[patient] = dice
    return result


def tune_prediction(
    model: keras.Model,
    config: Config,
    scaling: IntensityScaling,
    dataset: Dataset,
    on_progress: ProgressCallback = no_progress,
) -> tuple[Config, tuple[TriedSetting, ...]]:
    """Choose the settings [predict] of a network on the valid split.

    Args:
        model: The network, in float32.
        config: The settings of its training; [predict] is what is started from.
        scaling: Its intensities.
        dataset: The prepared slices of its training.
        on_progress: Called with predicted slices and slices in total.

    Returns:
        The settings with what was chosen, and everything that was tried.

    Raises:
        StorageError: A slice cannot be read, or the temporary folder has too little space.
        DataError: A slice cannot be decoded.
    """
    log.info("tuning the prediction on %d validation slices", len(dataset.select("valid")))
    with ValidationSplit(model, config, scaling, dataset, on_progress) as split:
        check_temporary_space(split.num_bytes)

        def measure(predict: Predict) -> float:
            return fmean(split.measure(predict).values())

        predict, dice, tried = choose_settings(config.predict, tuning_steps(config), measure)
    log_chosen(tried)
    log.info("Dice of the validation patients: %.4f, before %.4f", dice, tried[0].dice)
    return replace_predict(config, predict), tried


def log_chosen(tried: Sequence[TriedSetting]) -> None:
    """Log what was chosen instead of what was configured; tried: from choose_settings."""
    for each in tried[1:]:
        if each.chosen:
            log.info("%s = %s: Dice %.4f", each.setting, each.value, each.dice)


def tune_bundle(
    bundle: Storage,
    dataset: Dataset,
    config: Config,
    destination: Storage,
    on_progress: ProgressCallback = no_progress,
) -> Manifest:
    """Write a bundle with the weights of another one and settings chosen on its valid split.

    Args:
        bundle: The bundle with the weights; it stays as it is.
        dataset: The prepared slices of its training.
        config: Its settings, with data.* of where the slices are now.
        destination: Where the new bundle is written.
        on_progress: As for tune_prediction.

    Returns:
        The manifest of the new bundle; tried_settings is everything that was tried, and its
        validation patients include those of the valid split.

    Raises:
        BundleError: The bundle is damaged or an ensemble, or there is a bundle at the destination.
        DataError: The network was trained on a patient of the valid split, or there is none.
        StorageError: A slice or the bundle cannot be read, or the new one cannot be written.
    """
    folder, manifest = fetch_network(bundle, destination, "tune each member")
    check_classes(manifest, dataset)
    check_patient_leakage(manifest, dataset, "valid", config.data)
    own = load_config(folder / "config.toml")
    model = load_model(folder, own)
    batch = {"batch_size": config.predict.batch_size}
    start = own.model_copy(update={"predict": own.predict.model_copy(update=batch)})
    tuned, tried = tune_prediction(model, start, manifest.intensity_scaling, dataset, on_progress)
    # They have decided on the settings, so no evaluation may count them as test patients.
    valid = {*manifest.patients.get("valid", ()), *dataset.patients("valid")}
    metadata = changed_metadata(manifest, tuned, tried).model_copy(
        update={"patients": {**manifest.patients, "valid": tuple(sorted(valid))}}
    )
    export_bundle(model, tuned, metadata, destination)
    return bundles.read_manifest(destination)


class ValidationSplit:
    """The slices of the valid split, and the network that predicts them.

    A context manager. The predictions of the settings to start from, and the last ones of other
    views, are in files of the temporary folder until it ends.
    """

    def __init__(
        self,
        model: keras.Model,
        config: Config,
        scaling: IntensityScaling,
        dataset: Dataset,
        on_progress: ProgressCallback,
    ) -> None:
        self._model, self._config, self._scaling = model, config, scaling
        self._classes = [each.name for each in config.data.segmentation_classes]
        self._records = dataset.select("valid")
        self._reader = open_reader(dataset, self._records, scaling.window, config.data.neighbours)
        self._slices = f"{len(self._records)} validation slices"
        self._on_progress, self._done = on_progress, 0
        self._num_passes = _max_passes(config)
        self._first, self._last = ExitStack(), ExitStack()
        self._volumes: dict[_Views, list[PredictedVolume]] = {}
        self._dice: dict[str, dict[str, float]] = {}
        self.num_bytes = 2 * count_bytes(self._records, len(self._classes))
        """The bytes of its predictions in the temporary folder, at most."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._volumes.clear()
        # Both are closed, even if one raises.
        with self._first, self._last:
            pass

    def measure(self, predict: Predict) -> dict[str, float]:
        """The Dice of each patient with some settings; computed once.

        Raises:
            StorageError: A slice cannot be read, or the temporary folder has too little space.
            DataError: A slice cannot be decoded.
        """
        key = predict.model_dump_json()
        if key not in self._dice:
            self._dice[key] = compute_patient_dice(self._predict(predict), predict, self._classes)
        return self._dice[key]

    def _predict(self, predict: Predict) -> list[PredictedVolume]:
        """The volumes of the split, predicted with the views of some settings."""
        views = _views(predict)
        if views not in self._volumes:
            first = _views(self._config.predict)
            stack = self._first if views == first else self._last
            for other in [each for each in self._volumes if each != first]:
                del self._volumes[other]
            self._last.close()
            config = self._config.model_copy(update={"predict": predict})
            predictions = predict_volumes(
                self._records,
                self._reader,
                graph_function(SegmentationModule(self._model, config, self._scaling)),
                len(self._classes),
                config.predict.batch_size,
                self._report_slice,
            )
            self._volumes[views] = stack.enter_context(predictions)
        return self._volumes[views]

    def _report_slice(self) -> None:
        self._done += 1
        total = max(self._num_passes * len(self._records), self._done)
        self._on_progress(self._done, total, f"tuning the prediction on {self._slices}")


def _max_passes(config: Config) -> int:
    """How often choose_settings has the split predicted, at most.

    The settings to start from, each other value of a view, and the chosen views once more, if they
    are not the last ones.
    """
    steps = view_steps(config.data.augment)
    changes = [change_setting(config.predict, key, v) for key, values in steps for v in values]
    return 2 + sum(predict != config.predict for predict in changes)


def _views(predict: Predict) -> _Views:
    return predict.zooms, predict.shifts, predict.flips


def graph_function(module: SegmentationModule) -> PredictSlices:
    """The graph of a bundle as a function, as load_saved_model returns that of a written one."""
    # As in save_graph; one trace for each type of slice, and none for each size.
    graphs: Mapping[str, Any] = {
        name: tf.function(
            module.segment, autograph=False, input_signature=[tf.TensorSpec((None,) * 4, name)]
        )
        for name in ("uint8", "int32")
    }

    def predict(slices: Pixels) -> tuple[Mask, Probability]:
        outputs = graphs[str(slices.dtype)](tf.constant(slices))
        return outputs["mask"].numpy(), outputs["probability"].numpy()

    return predict


def replace_predict(config: Config, predict: Predict) -> Config:
    """The settings with other values of [predict], those that differ."""
    old, new = config.predict.model_dump(mode="json"), predict.model_dump(mode="json")
    return config.with_values(
        {f"predict.{name}": value for name, value in new.items() if value != old[name]}
    )
