"""Masks of volumes are complete when the last of their slices is predicted."""

import numpy as np

from contract.imaging.post_processing import PostProcessing
from trainer.data.dataset_index import SliceRecord
from trainer.evaluation.final_masks import finish_masks
from trainer.evaluation.mask_store import MaskStore


def record(name: str, patient: str, height: int = 4) -> SliceRecord:
    return SliceRecord(name, patient, "test", f"{name}.png", f"{name}-m.png", height, 5, (0.1,))


def test_slices_are_stacked_by_patient_series_and_size() -> None:
    records = [record("a-2", "a"), record("a-1", "a"), record("b-1", "b"), record("a-3", "a", 6)]
    masks = {each.name: np.zeros((each.height, 5), np.uint8) for each in records}
    masks["a-1"][0, 0:2] = 1
    masks["a-2"][0, 0] = 1
    masks["a-2"][3, 3:5] = 1
    masks["b-1"][3, 3:5] = 1
    masks["a-3"][5, 0] = 1
    predictions = [(each, masks[each.name] * 0, masks[each.name]) for each in reversed(records)]
    same = list(finish_masks(predictions, records, PostProcessing("slice", "slice")))
    assert same == predictions
    store = MaskStore()
    steps = PostProcessing(largest_component="patient")
    for each, _, mask in finish_masks(predictions, records, steps):
        store.put(each, mask)
    # What touches the larger part in the next slice is kept; the other series are untouched.
    masks["a-2"][3, 3:5] = 0
    for each in records:
        np.testing.assert_array_equal(store.get(each), masks[each.name])
