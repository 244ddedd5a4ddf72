"""Adam in one operation does what Keras's own does."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from contract.config import Train
from trainer.components import optimizers
from trainer.training.train_loop import seeded_initializers

THEIRS = {
    "adam": lambda: keras.optimizers.Adam(0.03, clipvalue=0.5),
    "adamw": lambda: keras.optimizers.AdamW(0.03, weight_decay=0.1, clipvalue=0.5),
}


def fitted(optimizer: keras.optimizers.Optimizer) -> list[np.ndarray]:
    """Weights and optimizer after five steps at two learning rates."""
    with seeded_initializers(4):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    rng = np.random.default_rng(0)
    inputs, outputs = rng.random((20, 3), np.float32), rng.random((20, 1), np.float32)
    for rate in (0.03, 0.01):
        model.optimizer.learning_rate = rate
        model.fit(inputs, outputs, batch_size=4, verbose=0, shuffle=False)
    return [variable.numpy() for variable in [*model.weights, *model.optimizer.variables]]


@pytest.mark.parametrize("name", THEIRS)
def test_the_updates_are_those_of_keras(name: str) -> None:
    train = Train.model_validate(
        {"optimizer": name, "weight_decay": 0.1, "clip_value": 0.5, "num_workers": 1}
    )
    ours, theirs = fitted(optimizers.build_optimizer(train)), fitted(THEIRS[name]())
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_average_follows_the_weights_closely_at_first(name: str) -> None:
    train = Train.model_validate({"optimizer": name, "ema_decay": 0.3})
    optimizer = optimizers.build_optimizer(train)
    variable = tf.Variable(tf.constant([5.0, -3.0]))
    optimizer.build([variable])
    optimizer.learning_rate = 0.1
    expected = np.zeros(2)
    # t / (9 + t) at steps 0 to 4, of which the last is above 0.3.
    for decay in (0.0, 0.1, 2 / 11, 0.25, 0.3):
        optimizer.apply_gradients([(2.0 * variable, variable)])
        expected = decay * expected + (1.0 - decay) * variable.numpy()
    np.testing.assert_allclose(optimizer.averages[0].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "name", "clip"),
    [
        ({"optimizer": "adam", "clip_value": 0.5}, "Adam", 0.5),
        ({"optimizer": "adamw"}, "AdamW", None),
        ({"optimizer": "sgd", "clip_norm": 12.0}, "SGD", None),
    ],
)
def test_the_optimizer_is_the_one_requested(
    settings: dict[str, object], name: str, clip: float | None
) -> None:
    optimizer = optimizers.build_optimizer(Train.model_validate(settings))
    assert type(optimizer).__name__ == name
    assert optimizer.clipvalue == clip
    assert optimizer.global_clipnorm == settings.get("clip_norm")
