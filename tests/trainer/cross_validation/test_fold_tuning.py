"""Nested cross-validation of the settings of the prediction, and what its progress shows."""

from contract.config import Predict
from trainer.cross_validation.fold_tuning import compute_nested_dice
from trainer.evaluation.prediction_tuning import Step


def test_a_fold_is_measured_with_the_settings_of_the_others() -> None:
    """Patient a wants a low threshold, b and c of the other fold a high one."""
    steps = [Step("threshold", (0.3, 0.7))]
    scores = {
        "a": {0.3: 0.9, 0.5: 0.5, 0.7: 0.1},
        "b": {0.3: 0.2, 0.5: 0.5, 0.7: 0.8},
        "c": {0.3: 0.3, 0.5: 0.5, 0.7: 0.7},
    }

    def measure(patients: str, predict: Predict) -> dict[str, float]:
        return {patient: scores[patient][predict.threshold] for patient in patients}

    folds = [lambda predict: measure("a", predict), lambda predict: measure("bc", predict)]
    # By patient and not by fold: 0.1 of a, 0.2 of b and 0.3 of c.
    assert round(compute_nested_dice(Predict(), steps, folds), 9) == 0.2


def test_the_nested_choice_does_not_start_from_what_is_configured() -> None:
    """0.4 may have been chosen on these patients; the others alone would not choose it."""
    steps = [Step("threshold", (0.3, 0.4))]
    scores = {"a": {0.3: 0.1, 0.4: 0.9, 0.5: 0.5}, "b": {0.3: 0.5, 0.4: 0.5, 0.5: 0.5}}
    folds = [
        lambda predict: {"a": scores["a"][predict.threshold]},
        lambda predict: {"b": scores["b"][predict.threshold]},
    ]
    for configured in (0.4, 0.5):
        dice = compute_nested_dice(Predict(threshold=configured), steps, folds)
        assert dice == 0.5, "a is measured with 0.5, b with 0.4"
