"""The points at which a slice of the phantom is drawn."""

import numpy as np

from trainer.data.phantom.shapes import VIEW, SamplePoints


def sample_points(z: float, side: int = 120) -> SamplePoints:
    """The pixels of a slice at a height in cm."""
    axis = ((np.arange(side) + 0.5) * (VIEW / side) - VIEW / 2).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return SamplePoints(x, y, z)
