"""Which example slices of a dataset are drawn."""

from contract.imaging.mask_encoding import threshold_encoding
from trainer.data.dataset_index import Dataset, SliceRecord
from trainer.data.dataset_plots import select_example_slices


def create_dataset(fingerprint: str) -> Dataset:
    """Ten patients of twenty slices each in one split."""
    records = tuple(
        SliceRecord(f"p{patient}-{number:02d}", f"p{patient}", "train", "i", "m", 8, 8, (0.1,))
        for patient in range(10)
        for number in range(20)
    )
    return Dataset("/slices", records, fingerprint, threshold_encoding(127))


def test_slices_are_drawn_evenly_over_patients():
    selected = select_example_slices(create_dataset("a"))
    assert len(selected) == 8
    assert len({record.patient for record in selected}) == 8


def test_the_same_dataset_shows_the_same_slices():
    assert select_example_slices(create_dataset("a")) == select_example_slices(create_dataset("a"))
    assert select_example_slices(create_dataset("a")) != select_example_slices(create_dataset("b"))
