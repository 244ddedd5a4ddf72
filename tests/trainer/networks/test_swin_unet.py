"""Swin-Unet: windows, their shift and padding, and its stages."""

from typing import Any

import numpy as np
import pytest
import tf_keras as keras
from pydantic import ValidationError

from contract.config.network import SwinUNet
from trainer.networks import swin_unet

HEADS, CHANNELS, WINDOW = 2, 4, 4


def attention_of_neighbours(
    qkv: np.ndarray, table: np.ndarray, window: tuple[int, int], shift: tuple[int, int]
) -> np.ndarray:
    """Attention of each token of a map [H, W, 3 C] to the tokens in the same shifted window."""
    height, width = qkv.shape[:2]
    rows, columns = (grid.ravel() for grid in np.mgrid[:height, :width])
    same = np.ones([height * width] * 2, bool)
    for position, size, offset in zip((rows, columns), window, shift, strict=True):
        index = (position - offset) // size
        same &= index[:, None] == index[None, :]
    clipped = [
        np.clip(position[:, None] - position[None, :], 1 - size, size - 1) + size - 1
        for position, size in zip((rows, columns), window, strict=True)
    ]
    out = np.zeros([height * width, CHANNELS])
    size = CHANNELS // HEADS
    for head in range(HEADS):
        features = np.arange(head * size, (head + 1) * size)
        q, k, v = (
            qkv.reshape(-1, 3 * CHANNELS)[:, features + part * CHANNELS] for part in range(3)
        )
        scores = q @ k.T / np.sqrt(size) + table[(*clipped, head)]
        weights = np.where(same, np.exp(scores), 0)
        out[:, features] = weights / weights.sum(axis=1, keepdims=True) @ v
    return out.reshape(height, width, CHANNELS)


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "window", "shift"),
    [
        (8, 8, (4, 4), (2, 2)),
        (6, 9, (4, 4), (2, 2)),
        (3, 8, (3, 4), (0, 2)),
        (4, 1, (4, 1), (0, 0)),
    ],
)
def test_a_token_attends_to_its_window_alone(
    height: int, width: int, window: tuple[int, int], shift: tuple[int, int], is_shifted: bool
) -> None:
    random = np.random.default_rng(0)
    qkv = random.normal(size=(2, height, width, 3 * CHANNELS)).astype(np.float32)
    layer = swin_unet.WindowAttention(HEADS, WINDOW, is_shifted, "attention")
    layer.build(qkv.shape)
    table = random.normal(size=layer.table.shape)
    layer.set_weights([table])
    shift = shift if is_shifted else (0, 0)
    assert (layer.window, layer.shift) == (window, shift)
    expected = [attention_of_neighbours(sample, table, window, shift) for sample in qkv]
    assert layer(qkv).numpy() == pytest.approx(np.array(expected), abs=1e-5)


def test_merging_joins_two_by_two_tokens() -> None:
    inputs = keras.Input((4, 6, 3))
    merge = keras.Model(inputs, swin_unet.patch_merging(inputs, "merge"))
    tokens = np.random.default_rng(0).normal(size=(1, 4, 6, 3)).astype(np.float32)
    changed = tokens.copy()
    changed[0, 2:4, 2:4] *= [1.0, 2.0, 3.0]
    difference = np.abs(merge(tokens) - merge(changed)).max(axis=(0, 3))
    assert difference.shape == (2, 3)
    assert np.argwhere(difference > 0).tolist() == [[1, 1]]


def test_stages_halve_the_grid_of_patches_and_double_the_features() -> None:
    network = SwinUNet(patch_size=2, embed_dim=4, depths=(1, 1, 1), num_heads=(1, 2, 4))
    stages = swin_unet.encoder(network, keras.Input((24, 40, 1)))
    assert [stage.shape[1:] for stage in stages] == [(12, 20, 4), (6, 10, 8), (3, 5, 16)]
    assert swin_unet.decoder(network, stages).shape[1:] == (12, 20, 4)


def test_deeper_blocks_are_skipped_more_often() -> None:
    network = SwinUNet(depths=(2, 2, 1), num_heads=(3, 6, 12), drop_path_rate=0.2)
    rates = [swin_unet.drop_path_rates(network, stage) for stage in range(3)]
    assert rates == [pytest.approx(each) for each in ([0, 0.05], [0.1, 0.15], [0.2])]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": [3, 6]}, r"network\.num_heads = \[3, 6\] must have one value for each of"),
        ({"embed_dim": 97}, r"3 heads do not divide the 97 features of stage 1 .*embed_dim = 97"),
        ({"image_size": 24}, r"at least 32 pixels \(network\.patch_size = 4, doubled by .*not 24"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_rejected(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        SwinUNet.model_validate(settings)
