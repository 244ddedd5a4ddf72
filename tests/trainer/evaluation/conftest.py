"""One evaluation of the test split, for every test that reads its result or its files."""

import dataclasses
from pathlib import Path

import pytest

from contract.storage import LocalStorage
from tests.trainer.conftest import Prepared
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.scores import Evaluation


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """An evaluation, what it wrote, and how many slices it reported."""

    evaluation: Evaluation
    destination: LocalStorage
    advanced: int


@pytest.fixture(scope="session")
def done(
    prepared: Prepared, thresholding: Path, tmp_path_factory: pytest.TempPathFactory
) -> EvaluationResult:
    destination = LocalStorage(tmp_path_factory.mktemp("evaluation"))
    steps: list[tuple[object, ...]] = []
    evaluation = evaluate(
        thresholding,
        prepared.dataset,
        "test",
        prepared.config.data,
        prepared.config.predict,
        destination,
        lambda *progress: steps.append(progress),
        save_masks=True,
    )
    return EvaluationResult(evaluation, destination, len(steps))
