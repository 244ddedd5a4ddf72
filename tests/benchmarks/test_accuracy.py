"""The settings that the variants of benchmarks/accuracy.py have."""

import pytest

from benchmarks.accuracy import SHIPPED, VARIANTS, create_settings, load_base


def test_settings_of_the_command_line_apply_to_all_variants() -> None:
    given = ["predict.threshold=0.3", "train.epochs=10", "data.folds=2"]
    for name in VARIANTS:
        config = create_settings(load_base(given), name, quick=False)
        assert (config.predict.threshold, config.data.folds) == (0.3, 2), name
        assert config.predict.zooms == (1.0,), "chosen for the shipped settings alone"


@pytest.mark.parametrize(("name", "epochs"), [(SHIPPED, 10), ("half of the filters", 40)])
def test_a_variant_with_fewer_multiply_adds_has_more_epochs(name: str, epochs: int) -> None:
    assert create_settings(load_base(["train.epochs=10"]), name, quick=False).train.epochs == epochs
