"""A training step that computes its batch in parts."""

import numpy as np
import pytest

from contract.config import Config
from tests.small import NETWORK
from trainer.training.train_loop import build_compiled_model

CONFIG = Config.model_validate(
    {
        # The entropy is a mean over pixels: that of the batch is the mean of its parts.
        "network": NETWORK,
        "train": {"num_workers": 1, "batch_size": 4, "loss": "binary_crossentropy"},
    }
)


def weights_after_a_step(config: Config) -> list[np.ndarray]:
    model = build_compiled_model(config)
    model.optimizer.learning_rate = 0.01
    side, _ = config.network.image_shape
    images = np.random.default_rng(0).random((4, side, side, 1), np.float32)
    model.fit(images, np.round(images), batch_size=4, verbose=0)
    return model.get_weights()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_gradient_of_all_parts_is_that_of_the_batch(optimizer: str) -> None:
    config = CONFIG.with_values({"train.optimizer": optimizer})
    whole = weights_after_a_step(config)
    for parts in (2, 4):
        divided = weights_after_a_step(config.with_values({"train.accumulate": parts}))
        for one, other in zip(whole, divided, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
