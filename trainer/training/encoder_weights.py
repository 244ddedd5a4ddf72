"""Pre-trained weights of an encoder: the file that network.encoder_weights names.

The driver checks the file and records its SHA-256 when a run starts. Each worker reads the file
when it builds the network of a run that has no checkpoint yet. A file whose content has changed
since the start of the run is an error in both.
"""

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from contract.config import Config, Network, encoder_weights
from contract.config.network import EfficientUNet, PretrainedEncoderSection
from contract.errors import NotFoundError, StorageError, TrainingError
from contract.state_files import read_json
from contract.storage import Storage, open_storage
from contract.temp_folders import folder_prefix
from trainer.export.keras_h5 import StoredWeights, read_h5

if TYPE_CHECKING:
    import tf_keras as keras

log = logging.getLogger(__name__)

RECORD = "encoder_weights.json"
_RESTORE_HINT = "restore it from a copy, or set run.name to a new name"


class EncoderWeightsRecord(TypedDict):
    """The content of encoder_weights.json."""

    sha256: str


def check_encoder_weights(name: str, storage: Storage, network: Network, is_needed: bool) -> None:
    """TrainingError if the file is invalid, or is not the one that a run or sweep started with.

    Args:
        name: How the message names it: "run 'demo'".
        storage: The storage of the run or sweep.
        network: The settings of this command.
        is_needed: Whether the file must exist; a run that has a checkpoint continues without it.
    """
    if encoder_weights(network) is None:
        return
    try:
        with _local_copy(network) as file:
            digest = _digest(file)
            _read_weights(file, network)
    except TrainingError as error:
        if is_needed or not isinstance(error.__cause__, NotFoundError):
            raise
        return
    if storage.exists(RECORD):
        _check_digest(name, digest, storage, network, is_empty=is_needed)


def warn_of_frozen_random_weights(config: Config) -> None:
    """Log a warning if layers of the encoder keep random weights."""
    network, train = config.network, config.train
    if encoder_weights(network) is not None or train.start_from is not None:
        return
    absent = "because train.start_from and network.encoder_weights are absent"
    if isinstance(network, EfficientUNet) and network.trainable_encoder_layers is not None:
        log.warning(
            "network.trainable_encoder_layers = %d freezes the other layers of the encoder with "
            "random weights, %s",
            network.trainable_encoder_layers,
            absent,
        )
    if train.freeze_encoder_epochs > 0 or train.encoder_lr_factor == 0:
        log.warning(
            "train.freeze_encoder_epochs = %g and train.encoder_lr_factor = %g freeze an encoder "
            "with random weights, %s",
            train.freeze_encoder_epochs,
            train.encoder_lr_factor,
            absent,
        )


def record_encoder_weights(storage: Storage, network: Network) -> None:
    """Write the SHA-256 of the file to the storage of a new run or sweep."""
    if encoder_weights(network) is not None:
        with _local_copy(network) as file:
            record = EncoderWeightsRecord(sha256=_digest(file))
        storage.write(RECORD, TypeAdapter(EncoderWeightsRecord).dump_json(record, indent=1))


def load_encoder_weights(model: "keras.Model", config: Config, run: Storage) -> None:
    """Set the weights of the encoder in a network, if the settings have any.

    Raises TrainingError if the file cannot be read, is not the one that the run was started with,
    or has the weights of another model.
    """
    network = config.network
    if encoder_weights(network) is None:
        return
    from trainer.networks import encoders

    with _local_copy(network) as file:
        _check_digest(f"run {config.run.name!r}", _digest(file), run, network, is_empty=True)
        weights = _read_weights(file, network)
    try:
        encoders.load_encoder_weights(model, weights)
    except ValueError as error:
        raise _error(network, str(error)) from error


@contextmanager
def _local_copy(network: Network) -> Iterator[Path]:
    """The file as a temporary one of this machine."""
    address = encoder_weights(network)
    assert address
    folder, name = _split(address)
    with tempfile.TemporaryDirectory(prefix=folder_prefix("weights")) as temporary:
        file = Path(temporary) / "weights"
        try:
            open_storage(folder).download_file(name, file)
        except NotFoundError as error:
            remedy = "name a file that every worker can read, such as one at an s3:// address"
            raise TrainingError(
                f"network.encoder_weights = {address!r} does not exist: {remedy}, or remove the "
                "setting to train from random weights."
            ) from error
        except StorageError as error:
            raise StorageError(f"network.encoder_weights = {address!r}: {error}") from error
        yield file


def _split(address: str) -> tuple[str, str]:
    """The folder or s3:// address of a file, and its name in there."""
    if "://" in address:
        folder, _, name = address.rpartition("/")
        return folder, name
    path = Path(address).expanduser().absolute()
    return str(path.parent), path.name


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_digest(
    name: str, digest: str, storage: Storage, network: Network, is_empty: bool
) -> None:
    recorded = read_json(storage, RECORD, EncoderWeightsRecord, _RESTORE_HINT)["sha256"]
    if digest != recorded:
        raise TrainingError(
            f"network.encoder_weights = {encoder_weights(network)!r} is not the file that {name} "
            f"in {storage.url} was started with (SHA-256 {recorded[:12]}…, now {digest[:12]}…): "
            "restore that file on every node, set run.name to a new name"
            + (f", or delete {storage.url}, which contains no epoch yet." if is_empty else ".")
        )


def _read_weights(file: Path, network: Network) -> StoredWeights:
    """The weights in the file; TrainingError if it is incomplete or another file."""
    try:
        return read_h5(file)
    except ValueError as error:
        raise _error(network, str(error)) from error


def _error(network: Network, problem: str) -> TrainingError:
    assert isinstance(network, PretrainedEncoderSection)
    return TrainingError(
        f"network.encoder_weights = {network.encoder_weights!r} {problem}: use "
        f"{network.encoder_weights_file} of keras.applications, or another file with the weights "
        "of this encoder without classification layer."
    )
