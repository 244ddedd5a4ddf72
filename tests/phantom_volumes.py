"""The built-in phantom as hospitals would hand it out: DICOM series and NIfTI labels.

`python -m tests.phantom_volumes FOLDER` writes the tree that docs/data.md imports. It follows the
conventions of NIH Pancreas-CT: CT/PANCREAS_0001/study/series, labels/label0001.nii.gz, and rows
that are stored in opposite directions.
"""

import sys
from pathlib import Path

import numpy as np

from contract.config import Phantom
from contract.imaging.decode import read_image
from contract.imaging.mask_encoding import threshold_encoding
from contract.imaging.volume import Volume
from contract.storage import LocalStorage
from tests.volumes import reorder, write_nifti, write_series
from trainer.data.phantom.generator import list_slices, write_phantom

# The window of the phantom's images in Hounsfield units, and the sizes of its voxels in mm.
LOW, WIDTH = -160, 400
SPACING = (2.5, 1.6, 1.6)


def write_phantom_tree(folder: Path, phantom: Phantom, seed: int = 0) -> None:
    """Write folder/CT and folder/labels; folder/slices holds the images that they are made of."""
    storage = LocalStorage(folder / "slices")
    write_phantom(phantom, seed, storage)
    names: dict[int, list[str]] = {}
    for each in list_slices(phantom):
        names.setdefault(each.patient, []).append(f"{each.split}/{{}}/{each.name}.png")
    for number, keys in enumerate(names.values(), start=1):
        images = [read_image(storage, key.format("images"))[..., 0] for key in keys]
        masks = [threshold_encoding(127).read(storage, key.format("masks")) for key in keys]
        units = np.rint(np.stack(images) * (WIDTH / 255.0) + LOW).astype(np.int16)
        affine = np.zeros((4, 4))
        affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *SPACING, 1.0
        affine[:3, 3] = -100.0, -100.0, 40.0 * number
        patient = f"PANCREAS_{number:04d}"
        write_series(
            folder / f"CT/{patient}/study/series",
            Volume(units, affine),
            PatientID=patient,
            PatientName=patient,
        )
        labels = reorder(Volume(np.stack(masks), affine), (0, 1, 2), (False, True, False))
        write_nifti(folder / f"labels/label{number:04d}.nii.gz", labels)


if __name__ == "__main__":
    write_phantom_tree(
        Path(sys.argv[1]),
        Phantom(train_patients=12, valid_patients=4, test_patients=4, slices=24, size=128),
    )
