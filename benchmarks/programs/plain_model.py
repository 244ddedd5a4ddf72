"""The network, loss and metrics of segfleet in a plain Keras model."""

from typing import Any

import tf_keras as keras

from contract.config import Config
from trainer.components.losses import SegmentationLoss
from trainer.components.metrics import SegmentationMetrics
from trainer.networks.layers import bind_dropout
from trainer.networks.registry import build_network


def build_plain_model(config: Config) -> Any:
    """The compiled model of one class."""
    model = build_network(config.network, 1, config.input_channels).inference_model
    model.compile(
        keras.optimizers.AdamW(config.train.learning_rate),
        SegmentationLoss(config.train, ["foreground"]),
        weighted_metrics=[SegmentationMetrics(["foreground"])],
    )
    bind_dropout(model, config.run.seed)
    return model
