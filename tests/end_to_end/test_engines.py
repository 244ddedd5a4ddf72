"""Graphs of bundles with every way of prediction give the same in both engines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.config import Config
from inference.engines import OpenVinoEngine, TensorFlowEngine
from tests.small import WINDOW
from trainer.export import saved_model
from trainer.training.train_loop import seeded_initializers

ADJUSTED = {"color_space": "hsv", "gamma": 1.5, "sharpening": 0.2}
WINDOWS = {"sliding_window": True, "window_size": [48, 64]}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hsv": (ADJUSTED, {}),
    "sharpening": ({"sharpening": 0.2}, {}),
    "lab by windows": ({"color_space": "lab"}, WINDOWS),
    "intersection": ({"gamma": 0.7}, {**WINDOWS, "intersect_resized": True}),
    "classes by windows": (
        {"source": "folder", "root": "slices", "classes": {"liver": 1, "kidney": 2}},
        WINDOWS,
    ),
}
SHAPES = [(64, 64, 3), (33, 90, 1), (7, 5, 3), (1, 1, 1)]


@pytest.mark.parametrize(("data", "predict"), CASES.values(), ids=list(CASES))
def test_both_engines_predict_the_same(
    data: dict[str, Any], predict: dict[str, Any], tmp_path: Path
) -> None:
    network = {"image_size": [24, 32], "image_channels": 3, "num_layers": 2, "base_filters": 4}
    config = Config.model_validate({"network": network, "data": data, "predict": predict})
    num_classes = len(config.data.segmentation_classes)
    with seeded_initializers(1):
        model = saved_model.build_inference_model(config.network, num_classes, 3)
    module = saved_model.SegmentationModule(model, config, WINDOW)
    saved_model.save_graph(module, tmp_path / "saved_model")
    engines = OpenVinoEngine(tmp_path, 2), TensorFlowEngine(tmp_path, 2)
    for shape in SHAPES:
        slices = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
        (probability, _), (expected, _) = (engine.infer(slices) for engine in engines)
        assert probability.shape == (2, *shape[:2], num_classes)
        # An intensity between two whole numbers may be rounded either way, and a hue jump from 255
        # to 0.
        difference = np.abs(probability - expected)
        assert np.quantile(difference, 0.99) < 0.01
        assert difference.mean() < 1e-3
