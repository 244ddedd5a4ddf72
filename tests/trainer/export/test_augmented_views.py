"""Test-time augmentation: views are aligned with the slice, and both engines run them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from contract.config import Config, Data, Predict
from inference.engines import OpenVinoEngine, TensorFlowEngine
from tests.small import WINDOW
from trainer.data.preprocessing import AxisMap
from trainer.export import saved_model
from trainer.export.augmented_views import SLICE, View, augmented_views
from trainer.training.train_loop import seeded_initializers

FLIPS = {"augment": {"flip_horizontal": 0.5, "flip_vertical": 0.5}}
NETWORK = {"image_size": [32, 48], "num_layers": 2, "base_filters": 4}
ALL: dict[str, Any] = {
    "zooms": [0.8, 1.0, 1.25],
    "shifts": [0.05],
    "flips": ["horizontal", "vertical"],
}
# Rows 16 to 48 of 64, and columns 12 to 60 of 96.
CROPPED = {**FLIPS, "crop_rows": [0.25, 0.75], "crop_columns": [0.125, 0.625]}
WINDOWS = {"sliding_window": True, "window_size": 32}
CLASSES = {"source": "folder", "root": "x", "classes": {"liver": 1, "kidney": 2, "spleen": 3}}


def create_module(
    image_channels: int = 1, data: Mapping[str, object] = FLIPS, **predict: object
) -> saved_model.SegmentationModule:
    network = {**NETWORK, "image_channels": image_channels}
    config = Config.model_validate({"network": network, "data": data, "predict": predict})
    with seeded_initializers(1):
        model = saved_model.build_inference_model(
            config.network, len(config.data.segmentation_classes), config.input_channels
        )
    # The bias of the start predicts hardly any foreground.
    model.weights[-1].assign(tf.zeros_like(model.weights[-1]))
    return saved_model.SegmentationModule(model, config, WINDOW)


def test_the_first_view_is_the_slice() -> None:
    views = augmented_views(Predict.model_validate(ALL), Data())
    assert len(views) == len(set(views)) == 1 + 2 + 4 + 2
    assert views[0] == SLICE
    assert View(rows=AxisMap(offset=-0.05)) in views
    assert augmented_views(Predict(), Data()) == (SLICE,)


def weights(outputs: int, inputs: int, factor: float, offset: float) -> np.ndarray:
    """[outputs, inputs]: where each output looks, as a triangle; empty rows outside."""
    rows = np.zeros((outputs, inputs))
    width = max(1.0, factor * inputs / outputs, -factor * inputs / outputs)
    for row in range(outputs):
        position = factor * ((row + 0.5) / outputs - 0.5) + offset
        if abs(position) <= 0.5 + 1e-6:
            center = (position + 0.5) * inputs - 0.5
            rows[row] = np.maximum(0.0, 1.0 - np.abs(np.arange(inputs) - center) / width)
            rows[row] /= rows[row].sum()
    return rows


@pytest.mark.parametrize("low", [0.0, 40.0])
def test_the_probability_is_the_mean_over_the_views_that_show_a_pixel(low: float) -> None:
    """By hand: zoom 0.8 and 1.25, a shift down and to the left, and a horizontal flip."""
    module = create_module(**ALL)
    module.scaling = WINDOW.from_window(low, 255.0)
    chosen = [
        SLICE,
        View(AxisMap(0.8), AxisMap(0.8)),
        View(AxisMap(1.25), AxisMap(1.25)),
        View(rows=AxisMap(offset=0.05), columns=AxisMap(offset=-0.1)),
        View(columns=AxisMap(-1.0)),
    ]
    module.views = tuple(chosen)
    raw = np.random.default_rng(0).integers(50, 255, (2, 40, 36, 1), np.uint8)
    total, count = np.zeros((2, 40, 36)), np.zeros((40, 36))
    for row_map, column_map in ((view.rows, view.columns) for view in chosen):
        to_view = [
            weights(size, length, 1 / factor, -offset / factor)
            for size, length, (factor, offset) in ((32, 40, row_map), (48, 36, column_map))
        ]
        to_slice = [
            weights(length, size, factor, offset)
            for size, length, (factor, offset) in ((32, 40, row_map), (48, 36, column_map))
        ]
        outside = 1.0 - np.outer(to_view[0].sum(1), to_view[1].sum(1))
        view = np.round(to_view[0] @ raw[..., 0] @ to_view[1].T + outside * low)
        images = tf.constant((np.maximum(view, low) - low) / (255 - low), tf.float32)
        maps = module.forward(tf.expand_dims(images, -1)).numpy()[:, :, :, 0]
        total += to_slice[0] @ maps @ to_slice[1].T
        count += np.outer(to_slice[0].sum(1), to_slice[1].sum(1))
    assert count.min() >= 3
    assert count.max() == pytest.approx(5)
    served = module.segment(tf.constant(raw))
    # An intensity that is rounded the other way changes a probability by less than this.
    assert np.abs(served["probability"][:, :, :, 0] - total / count).max() < 2e-3
    only_slice = create_module().segment(tf.constant(raw))["probability"]
    assert np.abs(served["probability"] - only_slice).max() > 5e-3


@pytest.mark.parametrize(
    ("settings", "channels"),
    [
        ({}, 1),
        (WINDOWS, 1),
        ({"image_channels": 3, "data": {**FLIPS, **CLASSES}, **WINDOWS}, 3),
        ({"data": {**FLIPS, **CLASSES, "neighbours": 1}, **WINDOWS}, 3),
    ],
    ids=["resized", "windows", "rgb", "neighbours"],
)
def test_every_view_is_mapped_back_to_the_same_pixels(
    settings: dict[str, Any], channels: int
) -> None:
    """A network that returns its input returns ramps unchanged, but for the rounding of views.

    Each channel is that of one class.
    """
    module = create_module(**ALL, **settings)
    module.forward = lambda slices: slices
    rows, columns, offset = np.mgrid[0:64, 0:96, 0:channels]
    raw = (60 + rows + columns + 10 * offset)[None].astype(np.uint8)
    for views in (module.views, *((SLICE, view) for view in module.views[1:])):
        module.views = views
        probability = module.segment(tf.constant(raw))["probability"].numpy()
        # At the border, views are interpolated with the outside, and half a pixel is missing.
        inside = np.abs(255 * probability - raw)[0, 4:-4, 4:-4]
        assert inside.max() < 1.0


def test_the_part_of_a_slice_is_segmented_as_if_it_were_the_slice() -> None:
    raw = np.random.default_rng(0).integers(0, 255, (2, 64, 96, 1), np.uint8)
    cropped = create_module(data=CROPPED).segment(tf.constant(raw))
    alone = create_module().segment(tf.constant(raw[:, 16:48, 12:60]))
    for name in ("probability", "mask"):
        part = cropped[name].numpy()[:, 16:48, 12:60]
        np.testing.assert_allclose(part, alone[name], atol=1e-5)
        assert part.any()
        outside = cropped[name].numpy()
        outside[:, 16:48, 12:60] = 0
        assert not outside.any()


def test_views_of_a_part_are_mapped_back_to_the_same_pixels() -> None:
    """As above, for a network that returns its input."""
    module = create_module(data=CROPPED, **ALL)
    module.forward = lambda slices: slices
    rows, columns = np.mgrid[0:64, 0:96]
    raw = (60 + rows + columns)[None, :, :, None].astype(np.uint8)
    for views in (module.views, *((module.views[0], view) for view in module.views[1:])):
        module.views = views
        probability = module.segment(tf.constant(raw))["probability"].numpy()
        inside = np.abs(255 * probability - raw)[0, 20:44, 16:56]
        assert inside.max() < 1.0
        probability[:, 16:48, 12:60] = 0
        assert not probability.any()


@pytest.mark.parametrize("part", [{}, {"data": CROPPED}, {"sliding_window": True, "overlap": 0.5}])
def test_both_engines_predict_the_same(part: dict[str, Any], tmp_path: Path) -> None:
    module = create_module(**ALL, **part)
    saved_model.save_graph(module, tmp_path / "saved_model")
    raw = np.random.default_rng(0).integers(0, 255, (3, 70, 52, 1), np.uint8)
    for slices in (raw, raw.astype(np.int32)):
        expected, mask = TensorFlowEngine(tmp_path, 1).infer(slices)
        served, served_mask = OpenVinoEngine(tmp_path, 1).infer(slices)
        assert np.abs(served - expected).max() < 1e-3
        certain = np.abs(expected[..., 0] - 0.5) > 1e-3
        np.testing.assert_array_equal(mask[certain], served_mask[certain])
