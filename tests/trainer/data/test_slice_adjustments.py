"""Changes of every slice: those of OpenCV, and the same in training and in a bundle."""

from typing import Any

import cv2
import numpy as np
import pytest
import tensorflow as tf

from contract.config import Config, Data
from tests.small import WINDOW
from trainer.data.preprocessing import normalize, resize_slices
from trainer.data.slice_adjustments import adjust_slices
from trainer.export.saved_model import SegmentationModule, build_inference_model

RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
RGB[0, 0], RGB[0, 1], RGB[0, 2] = 0, 255, 77


def adjust(image: np.ndarray, **data: Any) -> np.ndarray:
    slices = tf.constant(image[None], tf.float32)
    return adjust_slices(slices, Data.model_validate(data))[0].numpy()


@pytest.mark.parametrize(
    ("space", "code"),
    [
        ("hsv", cv2.COLOR_RGB2HSV_FULL),
        ("lab", cv2.COLOR_RGB2LAB),
        ("xyz", cv2.COLOR_RGB2XYZ),
        ("ycrcb", cv2.COLOR_RGB2YCrCb),
    ],
)
def test_color_spaces_are_those_of_opencv(space: str, code: int) -> None:
    expected = cv2.cvtColor(RGB, code).astype(float)
    difference = np.abs(adjust(RGB, color_space=space) - expected)
    # The hue is a circle.
    difference[..., 0] = np.minimum(difference[..., 0], 256 - difference[..., 0])
    assert difference.max() <= 1


def test_gamma_is_a_power_of_the_window() -> None:
    grey = RGB[..., :1]
    expected = np.round(255 * (grey / 255.0) ** 1.7)
    assert np.abs(adjust(grey, gamma=1.7) - expected).max() <= 1
    hounsfield = grey.astype(np.float32) * 4 - 500
    window = {"intensity_low": -100.0, "intensity_high": 300.0}
    inside = (np.clip(hounsfield, -100, 300) + 100) / 400
    expected = np.round(400 * inside**0.5 - 100)
    assert np.abs(adjust(hounsfield, gamma=0.5, **window) - expected).max() <= 1


def test_sharpening_is_a_kernel() -> None:
    kernel = np.full((3, 3), -0.3)
    kernel[1, 1] = 1 + 8 * 0.3
    expected = cv2.filter2D(RGB, -1, kernel, borderType=cv2.BORDER_REFLECT)
    assert np.abs(adjust(RGB, sharpening=0.3) - expected.astype(float)).max() <= 1
    assert np.array_equal(adjust(RGB[:1, :1], sharpening=0.3), RGB[:1, :1])


def test_the_color_space_is_the_last_step() -> None:
    """The order of the Antillia projects."""
    curve = np.round(255 * (np.arange(256) / 255.0) ** 1.5).astype(np.uint8)
    kernel = np.full((3, 3), -0.1)
    kernel[1, 1] = 1.8
    sharpened = cv2.filter2D(cv2.LUT(RGB, curve), -1, kernel, borderType=cv2.BORDER_REFLECT)
    expected = cv2.cvtColor(sharpened, cv2.COLOR_RGB2YCrCb).astype(float)
    adjusted = adjust(RGB, color_space="ycrcb", gamma=1.5, sharpening=0.1)
    # Single values are rounded differently, and the sharpening enlarges the difference.
    assert np.abs(adjusted - expected).max() <= 2
    assert np.abs(adjusted - expected).mean() < 0.2


def test_nothing_changes_by_default() -> None:
    wide = RGB.astype(np.float32) * 10 - 800
    assert np.array_equal(adjust(wide), wide)


@pytest.mark.parametrize("sliding_window", [False, True])
def test_a_bundle_predicts_what_training_sees(sliding_window: bool) -> None:
    network = {"image_size": 32, "image_channels": 3, "num_layers": 2, "base_filters": 4}
    data = {"color_space": "hsv", "gamma": 1.5, "sharpening": 0.2}
    predict = {"sliding_window": sliding_window}
    config = Config.model_validate({"network": network, "data": data, "predict": predict})
    model = build_inference_model(config.network, 1, 3)
    raw = tf.constant(RGB[None, :32, :32])
    cached = resize_slices(raw, (32, 32), 3, config.data)
    expected = model(normalize(cached, WINDOW)).numpy()
    probability = SegmentationModule(model, config, WINDOW).segment(raw)["probability"]
    assert np.abs(probability - expected).max() < 1e-5
    unchanged = model(normalize(tf.cast(raw, tf.float32), WINDOW)).numpy()
    assert np.abs(unchanged - expected).max() > 1e-4
