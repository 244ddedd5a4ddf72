"""A bundle with other settings of the prediction, made from the weights of a bundle."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract import bundle as bundles
from contract.bundle import BundleMetadata, Manifest, TriedSetting
from contract.config import Config, Predict
from contract.config.loader import load_config, parse_override
from contract.errors import BundleError, ConfigError
from contract.storage import LocalStorage, Storage
from contract.timestamps import utc_now

if TYPE_CHECKING:
    import tf_keras as keras

_TUNE = "predict.tune_on_validation"

log = logging.getLogger(__name__)


def load_changed_config(bundle: Storage, overrides: Sequence[str]) -> Config:
    """The settings of a bundle with other values of [predict].

    Raises ConfigError for a setting outside [predict], which a trained network cannot change, and
    for predict.tune_on_validation, which needs the validation patients.
    """
    keys = [key for key, _ in map(parse_override, overrides)]
    for key in keys:
        if key == _TUNE:
            raise ConfigError(
                f"export cannot tune ({key}): use `segfleet tune-bundle BUNDLE OUTPUT`."
            )
        if not key.startswith("predict."):
            names = [f"predict.{name}" for name in Predict.model_fields]
            raise ConfigError(
                f"export cannot change {key}, with which the bundle was created: override settings "
                f"of [predict] ({', '.join(name for name in names if name != _TUNE)})."
            )
    return load_config(bundles.fetch(bundle) / "config.toml", overrides)


def fetch_network(bundle: Storage, destination: Storage, remedy: str) -> tuple[Path, Manifest]:
    """A verified local folder, and the manifest, of a bundle from whose weights another is written.

    Args:
        bundle: The bundle.
        destination: Where the other one will be written.
        remedy: What to do with an ensemble: "export each member".

    Raises:
        BundleError: The bundle is damaged or an ensemble, or there is a bundle at the destination.
    """
    bundles.check_no_bundle(destination)
    folder = bundles.fetch(bundle)
    manifest = bundles.read_manifest(LocalStorage(folder))
    if manifest.members:
        raise BundleError(
            f"{bundle.url} is an ensemble, whose members have settings of their own: {remedy}, and "
            "make an ensemble of these with `segfleet ensemble`."
        )
    return folder, manifest


def export_with_settings(bundle: Storage, config: Config, destination: Storage) -> None:
    """Write a bundle with the weights of another one and other settings of the prediction.

    Args:
        bundle: The bundle with the weights; it stays as it is.
        config: Its settings with other values of [predict], from load_changed_config.
        destination: Where the new bundle is written.

    Raises:
        BundleError: The bundle is damaged or an ensemble, or there is a bundle at the destination.
        StorageError: The bundle cannot be read, or the new one cannot be written.
    """
    folder, manifest = fetch_network(bundle, destination, "export each member with other settings")
    previous = load_config(folder / "config.toml").predict
    shape = config.predict.window_shape(manifest.image_size)
    is_same = previous.sliding_window and previous.window_shape(manifest.image_size) == shape
    if config.predict.sliding_window and not is_same:
        log.warning(
            "the network was trained on slices of %d x %d pixels, and windows of %d x %d become "
            "that size: the masks are good only if they show about as much as the slices of the "
            "training",
            *manifest.image_size[::-1],
            *shape[::-1],
        )
    from trainer.export.saved_model import export_bundle

    model = load_model(folder, config)
    export_bundle(model, config, changed_metadata(manifest, config), destination)


def load_model(folder: Path, config: Config) -> "keras.Model":
    """The network of a bundle that is not an ensemble; folder: from bundle.fetch."""
    from trainer.export.saved_model import build_inference_model
    from trainer.export.weights import from_npz

    weights = from_npz((folder / "weights.npz").read_bytes())
    classes = len(config.data.segmentation_classes)
    return build_inference_model(config.network, classes, config.input_channels, weights)


def changed_metadata(
    manifest: Manifest, config: Config, tried: Sequence[TriedSetting] = ()
) -> BundleMetadata:
    """The metadata of a bundle with other settings [predict]; tried: how they were chosen."""
    values = {name: getattr(manifest, name) for name in BundleMetadata.model_fields}
    changed = {
        "created": utc_now(),
        "fingerprint": config.fingerprint(),
        **prediction_metadata(config.predict, tried),
    }
    return BundleMetadata(**{**values, **changed})


def prediction_metadata(predict: Predict, tried: Sequence[TriedSetting] = ()) -> dict[str, Any]:
    """The fields of a manifest that follow from [predict]; tried: how its values were chosen."""
    return {
        "threshold": predict.threshold,
        "class_thresholds": predict.class_thresholds,
        "zooms": predict.zooms,
        "shifts": predict.shifts,
        "flips": predict.flips,
        "post_processing": predict.post_processing,
        "tried_settings": tuple(tried),
    }
