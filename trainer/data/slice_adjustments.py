"""The changes of every slice that data.color_space, data.gamma and data.sharpening describe.

They are made before a slice is resized, first the gamma, then the sharpening, then the color space,
in the training cache and in the exported graph, so only operations are used that every inference
engine runs. The formulas of the color spaces are those of
OpenCV for 8 bits (docs.opencv.org, color conversions), with the full range of the hue.
"""

import tensorflow as tf

from contract.config import Data

_MAXIMUM = 255.0
_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.950456, 1.0, 1.088754)
_LUMA = (0.299, 0.587, 0.114)
# Of CIE L*a*b*: below this, the cube root is replaced by a line.
_LAB_THRESHOLD, _LAB_SLOPE, _LAB_OFFSET = 0.008856, 7.787, 16.0 / 116.0


def adjust_slices(slices: tf.Tensor, data: Data) -> tf.Tensor:
    """Raw slices, float32 [B, H, W, C], with changed intensities; unchanged by default.

    data: The settings [data]; with color_space, C is 3.
    """
    if not data.adjusts_slices:
        return slices
    low, high = data.intensity_low, data.intensity_high
    # Each step is rounded, as in images of whole numbers.
    adjusted = _clip(slices, low, high)
    if data.gamma != 1.0:
        adjusted = tf.round(
            low + (high - low) * tf.pow((adjusted - low) / (high - low), data.gamma)
        )
    if data.sharpening:
        adjusted = _clip(tf.round(_sharpen(adjusted, data.sharpening)), low, high)
    if data.color_space != "rgb":
        converted = tf.round(_CONVERSIONS[data.color_space](adjusted))
        adjusted = _clip(converted, 0.0, _MAXIMUM)
    return adjusted


def _clip(slices: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """tf.clip_by_value by selection.

    OpenVINO 2026.4 computes wrong values from a clipped tensor that several operations use
    (docs/lab-notes.md).
    """
    raised = tf.where(slices < low, low * tf.ones_like(slices), slices)
    return tf.where(raised > high, high * tf.ones_like(raised), raised)


def _sharpen(slices: tf.Tensor, strength: float) -> tf.Tensor:
    """Each pixel plus strength times its difference from its eight neighbours.

    Beyond the border, the outermost row and column are repeated.
    """
    padded = tf.pad(slices, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")
    rows, columns = tf.shape(slices)[1], tf.shape(slices)[2]
    window = tf.add_n(
        [
            padded[:, top : top + rows, left : left + columns]
            for top in range(3)
            for left in range(3)
        ]
    )
    return slices + strength * (9.0 * slices - window)


def _to_hsv(slices: tf.Tensor) -> tf.Tensor:
    red, green, blue = tf.unstack(slices, axis=-1)
    value, minimum = tf.reduce_max(slices, -1), tf.reduce_min(slices, -1)
    spread = value - minimum
    divisor = tf.where(spread > 0.0, spread, tf.ones_like(spread))
    sixths = tf.where(
        tf.equal(value, red),
        (green - blue) / divisor,
        tf.where(
            tf.equal(value, green), 2.0 + (blue - red) / divisor, 4.0 + (red - green) / divisor
        ),
    )
    # 256 steps of the circle: 255 is next to 0.
    hue = tf.math.floormod(tf.round(sixths / 6.0 * 256.0), 256.0)
    saturation = spread / tf.where(value > 0.0, value, tf.ones_like(value)) * _MAXIMUM
    return tf.stack([hue, saturation, value], -1)


def _to_xyz(slices: tf.Tensor) -> tf.Tensor:
    return tf.stack([_weigh(slices, weights) for weights in _XYZ], -1)


def _to_lab(slices: tf.Tensor) -> tf.Tensor:
    """L* as 0..255, a* and b* plus 128, of sRGB."""
    scaled = slices / _MAXIMUM
    linear = tf.where(scaled > 0.04045, tf.pow((scaled + 0.055) / 1.055, 2.4), scaled / 12.92)
    x, y, z = (_weigh(linear, weights) / white for weights, white in zip(_XYZ, _WHITE, strict=True))
    lightness = tf.where(y > _LAB_THRESHOLD, 116.0 * tf.pow(y, 1.0 / 3.0) - 16.0, 903.3 * y)
    fx, fy, fz = (
        tf.where(each > _LAB_THRESHOLD, tf.pow(each, 1.0 / 3.0), _LAB_SLOPE * each + _LAB_OFFSET)
        for each in (x, y, z)
    )
    return tf.stack(
        [lightness * _MAXIMUM / 100.0, 500.0 * (fx - fy) + 128.0, 200.0 * (fy - fz) + 128.0], -1
    )


def _to_ycrcb(slices: tf.Tensor) -> tf.Tensor:
    red, _, blue = tf.unstack(slices, axis=-1)
    luma = _weigh(slices, _LUMA)
    return tf.stack([luma, 0.713 * (red - luma) + 128.0, 0.564 * (blue - luma) + 128.0], -1)


def _weigh(slices: tf.Tensor, weights: tuple[float, float, float]) -> tf.Tensor:
    """[B, H, W], the weighted sum of the channels."""
    return tf.add_n(
        [weight * plane for weight, plane in zip(weights, tf.unstack(slices, axis=-1), strict=True)]
    )


_CONVERSIONS = {"hsv": _to_hsv, "lab": _to_lab, "xyz": _to_xyz, "ycrcb": _to_ycrcb}
