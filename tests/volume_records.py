"""The records of imported volumes, of which tests need sizes and axes only."""

from collections.abc import Sequence

from trainer.data.importers.slice_files import ImportOptions, VolumeRecord


def volume_record(
    name: str,
    patient: str,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    axes: Sequence[tuple[float, float, float]],
) -> VolumeRecord:
    """A volume in the standard order; axes: the rows of the 3 x 3 matrix of its affine."""
    return VolumeRecord(
        name=name,
        patient=patient,
        spacing_mm=spacing_mm,
        shape=shape,
        affine=(*((a, b, c, 0.0) for a, b, c in axes), (0.0, 0.0, 0.0, 1.0)),
        orientation="SPL",
        source_orientation="SPL",
        volume_digest="",
        labels_digest="",
        labels={},
        label_names={},
        slices=shape[0],
        options=ImportOptions(),
        files={},
    )
