"""Run lengths and bounding boxes describe a mask exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from contract.imaging.segmentation_class import create_classes
from inference.serving.schemas import (
    BoundingBox,
    SegmentResponse,
    bounding_box,
    decode_run_lengths,
    run_lengths,
)

masks = arrays(
    np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 1])
)

CLASSES = create_classes({"liver": 1, "kidney": 2})


@given(masks)
def test_run_lengths_decode_to_the_mask(mask: np.ndarray) -> None:
    runs = run_lengths(mask)
    assert sum(runs.counts) == mask.size
    assert all(count > 0 for count in runs.counts[1:])
    flat = np.repeat(np.arange(len(runs.counts)) % 2, runs.counts)
    np.testing.assert_array_equal(flat.reshape(runs.size, order="F"), mask)
    np.testing.assert_array_equal(decode_run_lengths(runs), mask)


@given(masks)
def test_the_bounding_box_is_the_smallest_one(mask: np.ndarray) -> None:
    box = bounding_box(mask)
    if box is None:
        assert not mask.any()
        return
    inside = mask[box.y : box.y + box.height, box.x : box.x + box.width]
    assert inside.sum() == mask.sum()
    for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
        assert edge.any()


def test_a_response_has_the_documented_fields() -> None:
    mask = np.zeros((3, 4), np.uint8)
    mask[1:, 2] = 2
    response = SegmentResponse.from_mask(mask, CLASSES, "pancreas", 3, 0.0123456789)
    assert response.model_dump() == {
        "model": "pancreas",
        "version": 3,
        "width": 4,
        "height": 3,
        "classes": [
            {
                "name": "liver",
                "color": "#e69f00",
                "area": 0,
                "bounding_box": None,
                "mask": {"size": (3, 4), "counts": [12]},
            },
            {
                "name": "kidney",
                "color": "#56b4e9",
                "area": 2,
                "bounding_box": {"x": 2, "y": 1, "width": 1, "height": 2},
                "mask": {"size": (3, 4), "counts": [7, 2, 3]},
            },
        ],
        "seconds": pytest.approx(0.012346),
    }
    assert response.classes[1].bounding_box == BoundingBox(x=2, y=1, width=1, height=2)
