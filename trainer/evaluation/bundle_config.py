"""The settings of a bundle for an evaluation, and where its files go; without TensorFlow.

A wrong reference or setting is therefore an error before TensorFlow is imported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from contract import bundle as bundles
from contract.config import Config
from contract.config.loader import flatten_settings, load_config
from contract.errors import ConfigError
from contract.storage import Storage, open_storage
from trainer.data.dataset_index import Dataset, Split

# Settings of [data] that are part of the graph of a bundle.
_IN_GRAPH = {
    "data.neighbours",
    "data.normalize",
    "data.intensity_low",
    "data.intensity_high",
    "data.color_space",
    "data.gamma",
    "data.sharpening",
    "data.crop_rows",
    "data.crop_columns",
}


def load_bundle_config(
    bundle: Storage, overrides: Sequence[str], settings: Mapping[str, Any]
) -> Config:
    """The settings of a bundle with some of them replaced, for an evaluation or its tuning.

    Raises ConfigError for one with which the bundle was created, and which therefore cannot change.
    """
    file = bundles.fetch(bundle) / "config.toml"
    original = flatten_settings(load_config(file).model_dump(mode="json"))
    config = load_config(file, overrides, **settings)
    for key, value in flatten_settings(config.model_dump(mode="json")).items():
        is_changeable = key.startswith(("data.", "storage.")) or key == "predict.batch_size"
        if value != original.get(key) and (key in _IN_GRAPH or not is_changeable):
            raise ConfigError(
                f"{key} cannot be changed, because the bundle was created with it: override "
                f"storage.*, predict.batch_size, or data.* except {', '.join(sorted(_IN_GRAPH))}."
            )
    return config


def report_storage(bundle: Storage, dataset: Dataset, split: Split, output: str | None) -> Storage:
    """Where the files of an evaluation are written: output, else next to the bundle's run."""
    if output is not None:
        return open_storage(output)
    # The metrics of other slices do not overwrite those of the bundle's own slices.
    is_own_dataset = bundles.read_manifest(bundle).dataset == dataset.fingerprint
    name = split if is_own_dataset else f"{split}-{dataset.fingerprint}"
    return open_storage(f"{bundle.url.removesuffix('/bundle')}/evaluation/{name}")
