"""Intensity augmentation: changes of the images alone, float32 [B, H, W, C] in 0..1."""

import math
from collections.abc import Mapping

import tensorflow as tf

from contract.config import Augment
from trainer.data.geometric_transforms import static_size
from trainer.data.random_numbers import RandomNumbers, elementwise, fold_in, normal

_NOISE = 3

PROBABILITIES = (
    "blur_probability",
    "low_resolution_probability",
    "sharpen_probability",
    "gamma_probability",
    "contrast_probability",
    "brightness_probability",
    "noise_probability",
    "cutout_probability",
)
"""The settings of [data.augment] that switch an intensity change on, in the order of `apply`."""

Fields = Mapping[str, tf.Tensor]


def draw_fields(
    seed: tf.Tensor, augment: Augment, shape: tuple[int, int, int]
) -> dict[str, tf.Tensor]:
    """One sample's noise [H, W, C], if it is used."""
    uses_noise = augment.noise_probability and augment.noise
    return {"noise": normal(fold_in(seed, _NOISE), shape)} if uses_noise else {}


def apply(images: tf.Tensor, random: RandomNumbers, fields: Fields, augment: Augment) -> tf.Tensor:
    """The images with every change that applies to them, clipped to 0..1."""
    changes = (
        _blur,
        _reduce_resolution,
        _sharpen,
        _change_gamma,
        _change_contrast,
        _change_brightness,
    )
    for probability, change in zip(PROBABILITIES, changes, strict=False):
        if getattr(augment, probability):
            images = change(images, random, augment)
    if "noise" in fields:
        applied = random.applied("noise", augment.noise_probability)
        images += fields["noise"] * _per_sample(applied * augment.noise)
    if augment.cutout_probability:
        images *= _cutout(images, random, augment)
    return tf.clip_by_value(images, 0.0, 1.0)


def blur(images: tf.Tensor, sigma: tf.Tensor, largest_sigma: float) -> tf.Tensor:
    """Gaussian blur of each image with its own standard deviation [B] in pixels; 0: unchanged."""
    radius = max(1, math.ceil(3.0 * largest_sigma))
    offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
    spread = tf.maximum(sigma, 1e-3)[:, None]
    weights = elementwise(tf.exp, -0.5 * tf.square(offsets[None] / spread))
    weights /= tf.cumsum(weights, axis=1)[:, -1:]
    return _filter(_filter(images, weights, axis=1), weights, axis=2)


def sharpen(images: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    """Unsharp masking with a blur of one pixel, by an amount [B]; 0: unchanged."""
    smooth = blur(images, tf.ones_like(amount), 1.0)
    return tf.clip_by_value(images + _per_sample(amount) * (images - smooth), 0.0, 1.0)


def reduce_resolution(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Each image as if it had been stored smaller by a factor [B] of 1 or more, and enlarged."""
    return _subsample(_subsample(images, factor, axis=1), factor, axis=2)


def _blur(images: tf.Tensor, random: RandomNumbers, augment: Augment) -> tf.Tensor:
    applied = random.applied("blur", augment.blur_probability)
    return blur(images, augment.blur * applied * random.fraction("blur.sigma"), augment.blur)


def _reduce_resolution(images: tf.Tensor, random: RandomNumbers, augment: Augment) -> tf.Tensor:
    applied = random.applied("low_resolution", augment.low_resolution_probability)
    largest = augment.low_resolution - 1.0
    factor = 1.0 + applied * random.fraction("low_resolution.factor") * largest
    return reduce_resolution(images, factor)


def _sharpen(images: tf.Tensor, random: RandomNumbers, augment: Augment) -> tf.Tensor:
    amount = augment.sharpen * random.applied("sharpen", augment.sharpen_probability)
    return sharpen(images, amount * random.fraction("sharpen.amount"))


def _change_gamma(images: tf.Tensor, random: RandomNumbers, augment: Augment) -> tf.Tensor:
    applied = random.applied("gamma", augment.gamma_probability)
    largest = math.log(augment.gamma)
    exponent = elementwise(tf.exp, applied * random.signed("gamma.exponent") * largest)
    pixels = math.prod(static_size(images, axis) for axis in (1, 2, 3))
    # tf.pow takes four times as long.
    logarithm = elementwise(tf.math.log, tf.clip_by_value(images, 1e-7, 1.0), pixels)
    return elementwise(tf.exp, _per_sample(exponent) * logarithm, pixels)


def _change_contrast(images: tf.Tensor, random: RandomNumbers, augment: Augment) -> tf.Tensor:
    applied = random.applied("contrast", augment.contrast_probability)
    factor = 1.0 + applied * random.signed("contrast.factor") * augment.contrast
    mean = _per_sample(_mean(images))
    return mean + (images - mean) * _per_sample(factor)


def _change_brightness(images: tf.Tensor, random: RandomNumbers, augment: Augment) -> tf.Tensor:
    applied = random.applied("brightness", augment.brightness_probability)
    factor = 1.0 + applied * random.signed("brightness.factor") * augment.brightness
    return images * _per_sample(factor)


def _mean(images: tf.Tensor) -> tf.Tensor:
    """[B] the mean of each image, with the same rounding in every batch.

    TensorFlow sums a batch of one in another order, so there is a second row.
    """
    rows = tf.reduce_mean(images, axis=[2, 3])
    return tf.reduce_mean(tf.pad(rows, [[0, 1], [0, 0]]), axis=1)[:-1]


def _per_sample(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(values, [-1, 1, 1, 1])


def _filter(images: tf.Tensor, weights: tf.Tensor, axis: int) -> tf.Tensor:
    """Weighted sum [B, n] of each pixel's neighbors along an axis; the border is mirrored."""
    length, taps = static_size(images, axis), static_size(weights, 1)
    border = [[0, 0], [0, 0], [0, 0], [0, 0]]
    border[axis] = [taps // 2, taps // 2]
    padded = tf.pad(images, border, mode="SYMMETRIC")
    shifted = [
        padded[:, index : index + length] if axis == 1 else padded[:, :, index : index + length]
        for index in range(taps)
    ]
    weight = [_per_sample(each) for each in tf.unstack(weights, axis=1)]
    return tf.add_n([each * image for each, image in zip(weight, shifted, strict=True)])


def _subsample(images: tf.Tensor, factor: tf.Tensor, axis: int) -> tf.Tensor:
    """Linear interpolation along an axis between pixels that are a factor [B] apart."""
    length = static_size(images, axis)
    positions = tf.range(length, dtype=tf.float32)[None] / factor[:, None]
    lower = tf.floor(positions)
    first = tf.minimum(tf.round(lower * factor[:, None]), length - 1.0)
    second = tf.minimum(tf.round((lower + 1.0) * factor[:, None]), length - 1.0)
    shape = [-1, length, 1, 1] if axis == 1 else [-1, 1, length, 1]
    weight = tf.reshape(positions - lower, shape)
    start, end = (
        tf.gather(images, tf.cast(index, tf.int32), axis=axis, batch_dims=1)
        if axis == 1
        else tf.transpose(
            tf.gather(
                tf.transpose(images, [0, 2, 1, 3]), tf.cast(index, tf.int32), axis=1, batch_dims=1
            ),
            [0, 2, 1, 3],
        )
        for index in (first, second)
    )
    return start + (end - start) * weight


def _cutout(images: tf.Tensor, random: RandomNumbers, augment: Augment) -> tf.Tensor:
    """1.0, and 0.0 within one rectangle of each image (DeVries & Taylor 2017): [B, H, W, 1]."""
    applied = augment.cutout * random.applied("cutout", augment.cutout_probability)
    inside = 1.0
    for axis, length in (("y", images.shape[1]), ("x", images.shape[2])):
        side = applied * random.fraction("cutout.height" if axis == "y" else "cutout.width")
        start = (random.fraction(f"cutout.{axis}") * (1.0 - side))[:, None]
        positions = (tf.range(length, dtype=tf.float32)[None] + 0.5) / length
        covered = (positions >= start) & (positions < start + side[:, None])
        shape = [-1, length, 1, 1] if axis == "y" else [-1, 1, length, 1]
        inside *= tf.reshape(tf.cast(covered, tf.float32), shape)
    return 1.0 - inside
