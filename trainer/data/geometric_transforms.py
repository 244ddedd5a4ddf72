"""Geometric augmentation: image and mask are sampled at the same points.

For every pixel of the result, the point of the original that it shows is computed: elastic and grid
distortion, barrel or pincushion distortion, shift, then one linear map of flip, right angle,
rotation, scale and shear. Positions are in pixels along both axes, so a rectangular image is
rotated and not sheared. Image and mask are then interpolated once, together. Points outside of the
image have the value 0.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import tensorflow as tf

from contract.config import Augment
from trainer.components.class_maps import class_indices, one_hot
from trainer.data.random_numbers import RandomNumbers, elementwise, fold_in, normal, uniform

# Along the shorter side; the distance between points is the same along both axes.
_ELASTIC_POINTS = 6
_GRID_CELLS = 5
_ELASTIC, _GRID = 1, 2

Fields = Mapping[str, tf.Tensor]


def draw_fields(seed: tf.Tensor, augment: Augment, size: tuple[int, int]) -> dict[str, tf.Tensor]:
    """The displacements that one sample's elastic and grid distortion need, if they are used.

    size: height and width of the image.
    """
    fields = {}
    if augment.elastic_probability:
        points = tuple(elastic_points(length, size) for length in size)
        fields["elastic"] = normal(fold_in(seed, _ELASTIC), (*points, 2))
    if augment.grid_distortion_probability:
        fields["grid_distortion"] = uniform(fold_in(seed, _GRID), (2, _GRID_CELLS))
    return fields


def elastic_points(length: int, size: tuple[int, int]) -> int:
    """How many points of the grid of elastic deformation cover an axis of an image."""
    shorter = max(min(size) - 1, 1)
    return 1 + math.ceil((length - 1) * (_ELASTIC_POINTS - 1) / shorter)


def apply(
    images: tf.Tensor, masks: tf.Tensor, random: RandomNumbers, fields: Fields, augment: Augment
) -> tuple[tf.Tensor, tf.Tensor]:
    """Images [B, H, W, C] and masks [B, H, W, K] of 0 and 1, both float32, transformed alike.

    A pixel of a mask has at most one of the K classes.
    """
    if not any(getattr(augment, name) for name in PROBABILITIES):
        return images, masks
    size = static_size(images, 1), static_size(images, 2)
    y, x = sampling_points(random, fields, augment, size)
    planes = split_channels(images)
    sampled = interpolate([*planes, *split_channels(masks)], y, x)
    coverage = join_channels(sampled[len(planes) :])
    warped_masks = one_hot(class_indices(coverage), static_size(masks, 3))
    return join_channels(sampled[: len(planes)]), warped_masks


def split_channels(values: tf.Tensor) -> list[tf.Tensor]:
    """[B, H, W, C] as C planes [B, H, W]; a single channel is not copied."""
    return [tf.squeeze(values, 3)] if static_size(values, 3) == 1 else tf.unstack(values, axis=3)


def join_channels(planes: Sequence[tf.Tensor]) -> tf.Tensor:
    """Planes [B, H, W] as [B, H, W, C]; a single plane is not copied."""
    return tf.stack(planes, axis=3) if len(planes) > 1 else tf.expand_dims(planes[0], 3)


def static_size(tensor: tf.Tensor, axis: int) -> int:
    """The size of an axis whose size is known when the graph is built."""
    size = tensor.shape[axis]
    assert size is not None
    return size


PROBABILITIES = (
    "flip_horizontal",
    "flip_vertical",
    "right_angles",
    "rotation_probability",
    "scale_probability",
    "shear_probability",
    "shift_probability",
    "elastic_probability",
    "grid_distortion_probability",
    "barrel_probability",
    "pincushion_probability",
)
"""The settings of [data.augment] that switch a geometric transformation on."""


def sampling_points(
    random: RandomNumbers, fields: Fields, augment: Augment, size: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """The row and the column, [B, H, W] in pixels, that each pixel of the result shows."""
    height, width = size
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    y = tf.reshape(tf.range(height, dtype=tf.float32) - center_y, [1, height, 1])
    x = tf.reshape(tf.range(width, dtype=tf.float32) - center_x, [1, 1, width])
    y, x = _distort_radially(*_displace(y, x, random, fields, augment, size), random, augment, size)
    if augment.shift_probability:
        applied = augment.shift * random.applied("shift", augment.shift_probability)
        y -= _per_sample(applied * random.signed("shift.y") * height)
        x -= _per_sample(applied * random.signed("shift.x") * width)
    yy, yx, xy, xx = (_per_sample(value) for value in _linear_map(random, augment))
    return yy * y + yx * x + center_y, xy * y + xx * x + center_x


def interpolate(planes: Sequence[tf.Tensor], y: tf.Tensor, x: tf.Tensor) -> list[tf.Tensor]:
    """Bilinear interpolation of planes [B, H, W] at points [B, H, W]; 0 outside.

    Two planes at a time are the real and the imaginary part of complex numbers. On a CPU a gather
    takes as long for two floats as for one, and operations along a last axis of two take ten times
    as long (docs/lab-notes.md).
    """
    batch = tf.shape(planes[0])[0]
    # A border of zeros, so that points outside of the image need no case of their own.
    height, width = static_size(planes[0], 1) + 2, static_size(planes[0], 2) + 2
    y = tf.clip_by_value(y + 1.0, 0.0, height - 1.0)
    x = tf.clip_by_value(x + 1.0, 0.0, width - 1.0)
    top = tf.minimum(tf.floor(y), height - 2.0)
    left = tf.minimum(tf.floor(x), width - 2.0)
    below, right = tf.cast(y - top, tf.complex64), tf.cast(x - left, tf.complex64)
    first = tf.reshape(tf.range(batch) * (height * width), [-1, 1, 1])
    corner = first + tf.cast(top * width + left, tf.int32)
    sampled = []
    for real, imaginary in zip_longest(
        planes[::2], planes[1::2], fillvalue=tf.zeros_like(planes[0])
    ):
        table = tf.pad(tf.complex(real, imaginary), [[0, 0], [1, 1], [1, 1]])
        table = tf.reshape(table, [-1])
        upper = _mix(tf.gather(table, corner), tf.gather(table, corner + 1), right)
        lower = _mix(tf.gather(table, corner + width), tf.gather(table, corner + width + 1), right)
        both = _mix(upper, lower, below)
        sampled += [tf.math.real(both), tf.math.imag(both)]
    return sampled[: len(planes)]


def _mix(first: tf.Tensor, second: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return first + (second - first) * weight


def _per_sample(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(values, [-1, 1, 1])


def _displace(
    y: tf.Tensor,
    x: tf.Tensor,
    random: RandomNumbers,
    fields: Fields,
    augment: Augment,
    size: tuple[int, int],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Move points by elastic deformation (Simard 2003, on a coarse grid) and grid distortion."""
    height, width = size
    if augment.grid_distortion_probability:
        applied = random.applied("grid_distortion", augment.grid_distortion_probability)
        cells = 1.0 + augment.grid_distortion * applied[:, None, None] * (
            2.0 * fields["grid_distortion"] - 1.0
        )
        y += _stretch(cells[:, 0], height)[:, :, None]
        x += _stretch(cells[:, 1], width)[:, None, :]
    if augment.elastic_probability:
        applied = augment.elastic * random.applied("elastic", augment.elastic_probability)
        moved_y, moved_x = (
            _interpolate_grid(grid, size) for grid in tf.unstack(fields["elastic"], axis=3)
        )
        y += moved_y * _per_sample(applied * min(size))
        x += moved_x * _per_sample(applied * min(size))
    return y, x


def _stretch(cells: tf.Tensor, length: int) -> tf.Tensor:
    """By how many pixels [B, length] cells of relative widths [B, n] move the pixels of an axis."""
    edges = tf.cumsum(cells, axis=1)
    edges = tf.pad(edges / edges[:, -1:], [[0, 0], [1, 0]])
    count = static_size(cells, 1)
    moved = 0.0
    for cell in range(count):
        # The fraction of this cell that lies before each pixel.
        start, end = cell * length / count, (cell + 1) * length / count
        positions = [min(max((p + 0.5 - start) / (end - start), 0.0), 1.0) for p in range(length)]
        moved += (edges[:, cell + 1] - edges[:, cell])[:, None] * tf.constant([positions])
    return moved * length - (tf.range(length, dtype=tf.float32) + 0.5)


def _interpolate_grid(grid: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Bicubic interpolation (Keys 1981, a = -0.5) of a grid [B, n, m] to [B, H, W].

    Written as sums of products, not as a matrix product, whose rounding may depend on B.
    """
    height, width = size
    rows = tf.add_n(
        [
            grid[:, index, None] * tf.reshape(weights, [1, height, 1])
            for index, weights in enumerate(_cubic_weights(height, size))
        ]
    )
    return tf.add_n(
        [
            rows[:, :, index, None] * tf.reshape(weights, [1, 1, width])
            for index, weights in enumerate(_cubic_weights(width, size))
        ]
    )


def _cubic_weights(length: int, size: tuple[int, int]) -> list[tf.Tensor]:
    """For each point of an axis, its weights [length] at the pixels; the ends are repeated."""
    points, shorter = elastic_points(length, size), max(min(size) - 1, 1)
    weights = [[0.0] * length for _ in range(points)]
    for pixel in range(length):
        position = pixel * (_ELASTIC_POINTS - 1) / shorter
        base = min(int(position), points - 2)
        for neighbor in range(base - 1, base + 3):
            distance = abs(position - neighbor)
            near = 1.5 * distance**3 - 2.5 * distance**2 + 1
            far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
            weight = near if distance <= 1 else far if distance < 2 else 0.0
            weights[min(max(neighbor, 0), points - 1)][pixel] += weight
    return [tf.constant(row, tf.float32) for row in weights]


def _distort_radially(
    y: tf.Tensor, x: tf.Tensor, random: RandomNumbers, augment: Augment, size: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Barrel and pincushion distortion: p (1 + k r²), with r = 1 in the corners."""
    if not augment.barrel_probability and not augment.pincushion_probability:
        return y, x
    barrel, pincushion = (
        random.applied(name, probability) * random.fraction(f"{name}.amount") * largest
        for name, probability, largest in (
            ("barrel", augment.barrel_probability, augment.barrel),
            ("pincushion", augment.pincushion_probability, augment.pincushion),
        )
    )
    squared_radius = (y * y + x * x) * (4.0 / (size[0] ** 2 + size[1] ** 2))
    factor = 1.0 + _per_sample(barrel - pincushion) * squared_radius
    return y * factor, x * factor


def _linear_map(
    random: RandomNumbers, augment: Augment
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The entries yy, yx, xy, xx, each [B], of the map from the result to the original."""
    angle = random.applied("rotation", augment.rotation_probability) * random.signed(
        "rotation.angle"
    )
    angle *= math.radians(augment.rotation)
    applied = random.applied("scale", augment.scale_probability)
    zoom = elementwise(tf.exp, -applied * random.signed("scale.factor") * math.log(augment.scale))
    cosine, sine = elementwise(tf.cos, angle) * zoom, elementwise(tf.sin, angle) * zoom
    matrix = (cosine, sine, -sine, cosine)
    if augment.shear_probability:
        applied = random.applied("shear", augment.shear_probability)
        largest = math.radians(augment.shear)
        shear_y = elementwise(tf.tan, applied * random.signed("shear.y") * largest)
        shear_x = elementwise(tf.tan, applied * random.signed("shear.x") * largest)
        one = tf.ones_like(shear_y)
        matrix = _multiply(matrix, (one, shear_y, shear_x, one))
    if augment.right_angles:
        turns = tf.cast(random.fraction("right_angles.turns") * 3.0, tf.int32) + 1
        turns *= tf.cast(random.applied("right_angles", augment.right_angles), tf.int32)
        cosine = tf.gather([1.0, 0.0, -1.0, 0.0], turns)
        sine = tf.gather([0.0, 1.0, 0.0, -1.0], turns)
        matrix = _multiply((cosine, sine, -sine, cosine), matrix)
    up_down = 1.0 - 2.0 * random.applied("flip_vertical", augment.flip_vertical)
    left_right = 1.0 - 2.0 * random.applied("flip_horizontal", augment.flip_horizontal)
    return matrix[0] * up_down, matrix[1] * up_down, matrix[2] * left_right, matrix[3] * left_right


def _multiply(
    a: tuple[tf.Tensor, ...], b: tuple[tf.Tensor, ...]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The product of two matrices given by rows."""
    return (
        a[0] * b[0] + a[1] * b[2],
        a[0] * b[1] + a[1] * b[3],
        a[2] * b[0] + a[3] * b[2],
        a[2] * b[1] + a[3] * b[3],
    )
