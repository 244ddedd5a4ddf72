"""A bundle of weights that another program has trained."""

import logging
from pathlib import Path

from contract.bundle import check_no_bundle
from contract.config import Config
from contract.imaging.intensity_scaling import IntensityScaling
from contract.storage import Storage
from trainer.export.antillia_weights import load_weights
from trainer.export.saved_model import export_bundle
from trainer.training.finalize import bundle_metadata
from trainer.training.run_store import TrainingDataInfo

log = logging.getLogger(__name__)


def import_weights(config: Config, file: Path, destination: Storage) -> None:
    """Write a bundle with the weights of a best_model.h5 (trainer.export.antillia_weights).

    Args:
        config: The settings of the network, with train.antillia_weights and antillia_channels.
        file: The file.
        destination: Where the bundle is written.

    Raises:
        ConfigError, TrainingError: As for load_weights.
        BundleError: There is a bundle at the destination.
    """
    check_no_bundle(destination)
    model = load_weights(config, file)
    log.warning(
        "%s does not say which patients it was trained on: segfleet evaluate cannot detect data "
        "leakage, so evaluate the bundle on patients that you know to be new to it",
        file,
    )
    scaling = IntensityScaling.from_window(config.data.intensity_low, config.data.intensity_high)
    metadata = bundle_metadata(config, TrainingDataInfo("unknown", {}, scaling), {}, None)
    export_bundle(model, config, metadata, destination)
