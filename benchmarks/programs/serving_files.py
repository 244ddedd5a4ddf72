"""What the service is measured with: JPEG slices of the phantom, and a bundle of first weights.

Arguments: the settings and the folder of the benchmark.
"""

import sys

import cv2

from contract.bundle import BundleMetadata
from contract.config.loader import load_config
from contract.host_info import host_info
from contract.imaging.decode import read_image
from contract.imaging.intensity_scaling import IntensityScaling
from contract.storage import open_storage
from contract.timestamps import utc_now
from trainer.data.dataset_index import prepare_dataset
from trainer.export import saved_model

SLICES = 16
PHANTOM = {
    "data.source": "phantom",
    "data.root": None,
    "data.phantom.size": 512,
    "data.phantom.train_patients": 1,
    "data.phantom.valid_patients": 1,
    "data.phantom.test_patients": 1,
    "data.phantom.slices": SLICES,
}


def main() -> None:
    """Write slices/*.jpg and bundle/."""
    config, folder = load_config(sys.argv[1]), open_storage(sys.argv[2])
    dataset = prepare_dataset(config.with_values(PHANTOM).data, 0, folder)
    for number, record in enumerate(dataset.slices[:SLICES]):
        image = read_image(open_storage(dataset.root), record.image)
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        folder.write(f"slices/{number:02}.jpg", jpeg.tobytes())
    metadata = BundleMetadata(
        name="benchmark",
        created=utc_now(),
        commit=None,
        machine=host_info()["machine"],
        fingerprint=config.fingerprint(),
        dataset=dataset.fingerprint,
        patients={},
        image_size=config.network.image_shape,
        image_channels=config.network.image_channels,
        neighbours=config.data.neighbours,
        classes=config.data.segmentation_classes,
        intensity_scaling=IntensityScaling.from_window(
            config.data.intensity_low, config.data.intensity_high
        ),
        class_tolerance=config.data.class_tolerance,
        other_values_are_background=config.data.other_values_are_background,
        threshold=config.predict.threshold,
        metrics={},
    )
    num_classes = len(metadata.classes)
    model = saved_model.build_inference_model(config.network, num_classes, config.input_channels)
    saved_model.export_bundle(model, config, metadata, folder.child("bundle"))


if __name__ == "__main__":
    main()
