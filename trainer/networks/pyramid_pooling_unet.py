"""The pyramid-pooling residual UNet, after Li et al. 2021, doi:10.1186/s12880-021-00694-1.

The paper, "Accurate pancreas segmentation using multi-level pyramidal pooling residual U-Net with
adversarial mechanism" (BMC Medical Imaging 21:168), adds three things to a UNet: residual learning;
a module that gathers context by pyramid pooling, of which it compares four structures with
different numbers of pooling blocks, and two types of blocks; and adversarial training. The first
two are the network, and are here. Adversarial training, which needs a second network and its own
loss, is out of scope.

This network follows the paper's abstract, which leaves open the sizes of the layers and what
the blocks consist of. So the number of parameters, 35,583,873 with 64 filters and batch
normalization, is not that of the authors' network. The choices here:

- A block of a level is the residual block of He 2015 (arXiv:1512.03385), with the filters, kernel
  size and dilation of the flexible UNet (unet.py): relu(norm(conv(relu(norm(conv(x))))) + x), where
  x is projected by a 1 x 1 convolution if it has another number of filters.
- The module is that of PSPNet (Zhao 2017, arXiv:1612.01105) between encoder and decoder. Block i
  pools the deepest features of F filters to n x n cells (n = 1, 2, 3, 6); a 1 x 1 convolution
  reduces them to F / num_pooling_blocks filters; they are interpolated bilinearly to their size
  before. A 1 x 1 convolution reduces the features and all blocks, concatenated, to F filters.
- The cells are not normalized, because batch statistics of a single cell would be those of as few
  values as there are slices in a batch; the result of the module is.
- The two types of blocks take the average or the maximum of a cell.
- Deep supervision is a setting, and off by default.
"""

import tensorflow as tf
import tf_keras as keras

from contract.config.network.pyramid_pooling_unet import Pooling, PyramidPoolingUNet
from trainer.networks import unet
from trainer.networks.layers import (
    Dropout,
    conv_norm,
    conv_norm_activation,
    create_activation,
    level_dropout,
)
from trainer.networks.outputs import NetworkOutputs

_GRIDS = (1, 2, 3, 6)


def build(network: PyramidPoolingUNet, slices: tf.Tensor, num_classes: int) -> NetworkOutputs:
    """[B, H, W, C] normalized intensities to the probabilities of the classes."""
    return unet.build(
        network, slices, num_classes, block=residual_block, bottleneck=pyramid_pooling
    )


def residual_block(network: PyramidPoolingUNet, level: int, x: tf.Tensor, stage: str) -> tf.Tensor:
    """Two convolutions with a residual connection around them, then dropout.

    stage: the beginning of the names of its layers, such as "encoder_0".
    """
    filters = unet.level_filters(network, level)
    kernel_size = unet.level_kernel_size(network, level)
    shortcut = x
    if x.shape[-1] != filters:
        shortcut = conv_norm(x, filters, network.normalization, f"{stage}_shortcut", 1)
    dilation = unet.level_dilation(network, level)
    normalization, activation = network.normalization, network.activation
    x = conv_norm_activation(
        x, filters, normalization, activation, f"{stage}_1", kernel_size, dilation
    )
    x = conv_norm(x, filters, normalization, f"{stage}_2", kernel_size, dilation)
    x = keras.layers.Add(name=f"{stage}_add")([x, shortcut])
    x = create_activation(network.activation, f"{stage}_activation")(x)
    return Dropout(level_dropout(network.dropout_rate, level), name=f"{stage}_dropout")(x)


def pyramid_pooling(network: PyramidPoolingUNet, x: tf.Tensor) -> tf.Tensor:
    """The deepest features and their context at several scales: the shape of x again."""
    _, height, width, filters = keras.backend.int_shape(x)
    branches = [x]
    for grid in _GRIDS[: network.num_pooling_blocks]:
        stage = f"pyramid_{grid}"
        cells = GridPooling(grid, network.pooling, name=f"{stage}_pool")(x)
        cells = keras.layers.Conv2D(
            max(filters // network.num_pooling_blocks, 1),
            1,
            kernel_initializer="he_normal",
            name=f"{stage}_conv",
        )(cells)
        cells = create_activation(network.activation, f"{stage}_activation")(cells)
        branches.append(keras.layers.Resizing(height, width, name=f"{stage}_resize")(cells))
    x = keras.layers.Concatenate(name="pyramid_concatenate")(branches)
    return conv_norm_activation(
        x, filters, network.normalization, network.activation, "pyramid", kernel_size=1
    )


class GridPooling(keras.layers.Layer):
    """Pools features of any size to a grid of cells: [B, H, W, C] to [B, grid, grid, C].

    The cells cover all features. Where a side is not divisible by the grid, neighbouring cells
    share a row or a column.
    """

    def __init__(self, grid: int, pooling: Pooling, **kwargs: object) -> None:
        """grid: cells per side. pooling: what is computed of the features of a cell."""
        super().__init__(**kwargs)
        self.grid = grid
        self.reduce = tf.reduce_max if pooling == "max" else tf.reduce_mean

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The cells."""
        _, height, width, _ = keras.backend.int_shape(inputs)
        rows = [self.reduce(inputs[:, a:b], axis=1) for a, b in cell_ranges(height, self.grid)]
        x = tf.stack(rows, axis=1)
        columns = [self.reduce(x[:, :, a:b], axis=2) for a, b in cell_ranges(width, self.grid)]
        return tf.stack(columns, axis=2)


def cell_ranges(side: int, grid: int) -> list[tuple[int, int]]:
    """The first position of each cell of a side and the one after its last."""
    return [(i * side // grid, -(-(i + 1) * side // grid)) for i in range(grid)]
