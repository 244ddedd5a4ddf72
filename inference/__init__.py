"""From a bundle to masks: prediction of files, and the HTTP service. Imports no Keras.

For notebooks and scripts: load_config, load_bundle and connect (docs/python.md).
May import cluster and contract.
"""

from typing import TYPE_CHECKING

from contract.config import Storage
from contract.config.loader import load_config

if TYPE_CHECKING:
    from inference.predictor import Predictor
    from inference.serving.client import ServiceClient

__all__ = ["connect", "load_bundle", "load_config"]


def load_bundle(reference: str, storage_root: str = Storage().root) -> "Predictor":
    """Load a bundle for prediction in this process, after checking its files.

    Args:
        reference: A bundle: its folder or s3:// address, NAME@STAGE or NAME@VERSION, or a run: its
            name, folder or address.
        storage_root: Folder or s3:// address with the runs and with the registry that knows the
            name.

    Returns:
        A Predictor, whose `predict` takes an array or the path of an image file, and
        `predict_volume` the slices of a volume.

    Raises:
        RegistryError: There is no such model, version or stage.
        BundleError: A file of the bundle is missing or damaged; the message names it.

    Example:
        >>> segmentation = inference.load_bundle("demo@production").predict("slice.png")
        >>> segmentation.mask.shape
    """
    from contract.cli.log_setup import configure_libraries
    from contract.registry import open_bundle
    from inference.predictor import load_predictor, warn_if_not_applied

    configure_libraries()
    predictor = load_predictor(open_bundle(reference, storage_root))
    warn_if_not_applied(predictor.manifest, "the single slices of predict and predict_batch")
    return predictor


def connect(url: str, api_key: str | None = None, timeout_s: float = 60.0) -> "ServiceClient":
    """A client of a running service; nothing is sent yet.

    Args:
        url: The URL of the service: "http://127.0.0.1:8000".
        api_key: The key that the service requires, if it requires one.
        timeout_s: Seconds to wait for a response.

    Example:
        >>> client = inference.connect("http://127.0.0.1:8000")
        >>> client.segment("slice.png").area
    """
    from inference.serving.client import ServiceClient

    return ServiceClient(url, api_key, timeout_s)
