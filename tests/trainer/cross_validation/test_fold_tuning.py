"""Nested cross-validation of the settings of the prediction."""

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
