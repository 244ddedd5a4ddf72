"""Seeds and draws: distinct for distinct values, and the same on every call."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.data.random_numbers import NAMES, RandomNumbers, create_seed, fold_in, normal, uniform


def test_a_seed_depends_on_every_value_and_on_their_order() -> None:
    seeds = {
        tuple(fold_in(create_seed(run), *values).numpy())
        for run in (0, 1, 2**31, 2**40)
        for values in ((0, 1), (1, 0), (1, 1), (1,))
    }
    assert len(seeds) == 16


def test_numbers_have_their_distribution() -> None:
    seed = fold_in(create_seed(1), 2)
    assert np.array_equal(uniform(seed, (3,)), uniform(seed, (3,)))
    values = uniform(seed, (20000,)).numpy()
    assert (values.min() >= 0, values.max() < 1) == (True, True)
    assert values.mean() == pytest.approx(0.5, abs=0.01)
    assert normal(seed, (20000,)).numpy().std() == pytest.approx(1.0, abs=0.02)


def test_draws_are_found_by_their_name() -> None:
    values = np.zeros((2, len(NAMES)), np.float32)
    values[:, NAMES.index("scale")] = 0.25, 0.75
    random = RandomNumbers(tf.constant(values))
    assert random.fraction("scale").numpy().tolist() == [0.25, 0.75]
    assert random.signed("scale").numpy().tolist() == [-0.5, 0.5]
    assert random.applied("scale", 0.5).numpy().tolist() == [1.0, 0.0]
    assert random.applied("scale", 0.25).numpy().tolist() == [0.0, 0.0]
