"""The first step of a plain Keras script on random numbers.

Argument: the settings.
"""

import sys

import numpy as np

from benchmarks.programs.plain_model import build_plain_model
from contract.config.loader import load_config


def main() -> None:
    """Build the model and train it for one step."""
    config = load_config(sys.argv[1])
    model = build_plain_model(config)
    shape, batch = config.network.image_shape, config.train.batch_size
    slices = np.random.rand(batch, *shape, config.network.image_channels).astype("float32")
    model.train_on_batch(slices, (slices[..., :1] > 0.9).astype("float32"))


if __name__ == "__main__":
    main()
