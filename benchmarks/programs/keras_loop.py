"""One slice after the other through Keras' `model.predict`, with OpenCV.

Arguments: the settings, the folder of the benchmark and the number of threads.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from benchmarks.programs.timed_loop import run_loop
from contract.config.loader import load_config
from trainer.networks.registry import build_network


def main() -> None:
    """Build the network and run the loop."""
    config = load_config(sys.argv[1])
    tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[3]))
    model = build_network(config.network, 1, config.input_channels).inference_model
    height, width = config.network.image_shape
    low, high = config.data.intensity_low, config.data.intensity_high

    def segment(data: bytes) -> bytes:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        batch = (np.clip(small.astype(np.float32), low, high) - low) / (high - low)
        maps = model.predict(batch[None, ..., None], verbose=0)[0, ..., 0]
        full = cv2.resize(maps, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
        mask = (full > config.predict.threshold).astype(np.uint8) * 255
        return cv2.imencode(".png", mask)[1].tobytes()

    run_loop(segment, Path(sys.argv[2], "slices"))


if __name__ == "__main__":
    main()
