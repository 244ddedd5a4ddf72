"""A bundle with other settings of the prediction, made from the weights of a bundle."""

import logging
from collections.abc import Sequence

from contract import bundle as bundles
from contract.bundle import BundleMetadata, Manifest
from contract.config import Config
from contract.config.loader import load_config, parse_override
from contract.errors import BundleError, ConfigError
from contract.storage import LocalStorage, Storage
from contract.timestamps import utc_now

log = logging.getLogger(__name__)


def load_changed_config(bundle: Storage, overrides: Sequence[str]) -> Config:
    """The settings of a bundle with other values of [predict].

    Raises ConfigError for a setting outside [predict], which a trained network cannot change.
    """
    keys = [key for key, _ in map(parse_override, overrides)]
    for key in keys:
        if not key.startswith("predict."):
            raise ConfigError(
                f"export cannot change {key}, with which the bundle was created: override "
                "predict.threshold, predict.sliding_window, predict.overlap or predict.batch_size."
            )
    return load_config(bundles.fetch(bundle) / "config.toml", overrides)


def export_with_settings(bundle: Storage, config: Config, destination: Storage) -> None:
    """Write a bundle with the weights of another one and other settings of the prediction.

    Args:
        bundle: The bundle with the weights; it stays as it is.
        config: Its settings with other values of [predict], from load_changed_config.
        destination: Where the new bundle is written.

    Raises:
        BundleError: The bundle is damaged, or there is a bundle at the destination.
        StorageError: The bundle cannot be read, or the new one cannot be written.
    """
    if destination.exists(bundles.MANIFEST):
        raise BundleError(
            f"{destination.url} has a bundle already: choose another folder, or delete it."
        )
    folder = bundles.fetch(bundle)
    manifest = bundles.read_manifest(LocalStorage(folder))
    previous = load_config(folder / "config.toml").predict
    if config.predict.sliding_window and not previous.sliding_window:
        height, width = manifest.image_size
        log.warning(
            "the slices of the training were resized to %d x %d pixels; windows of slices are not "
            "resized: the masks are good only if those slices had about that size",
            height,
            width,
        )
    from trainer.export.saved_model import build_inference_model, export_bundle
    from trainer.export.weights import from_npz

    weights = from_npz((folder / "weights.npz").read_bytes())
    model = build_inference_model(
        config.network, len(manifest.classes), config.input_channels, weights
    )
    export_bundle(model, config, _changed_metadata(manifest, config), destination)


def _changed_metadata(manifest: Manifest, config: Config) -> BundleMetadata:
    values = {name: getattr(manifest, name) for name in BundleMetadata.model_fields}
    changed = {
        "created": utc_now(),
        "fingerprint": config.fingerprint(),
        "threshold": config.predict.threshold,
    }
    return BundleMetadata(**{**values, **changed})
