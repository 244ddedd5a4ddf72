"""Arrays of a model's state as bytes."""

import numpy as np

from trainer.export.weights import from_npz, to_npz


def test_the_state_survives_in_order_and_type() -> None:
    state = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64), np.zeros((0, 2))]
    restored = from_npz(to_npz(state))
    assert len(restored) == len(state)
    for before, after in zip(state, restored, strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)
