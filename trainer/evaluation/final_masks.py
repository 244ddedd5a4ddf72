"""The final masks of an evaluation: after the steps that need all slices of a volume."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from contract.imaging.components import process_volume
from contract.imaging.post_processing import PostProcessing
from trainer.data.dataset_index import SliceRecord, find_record_volumes
from trainer.evaluation.slice_reader import Mask

PredictedSlice = tuple[SliceRecord, Mask, Mask]
"""A slice, its ground truth, and its predicted mask."""


def finish_masks(
    predictions: Iterable[PredictedSlice], records: Sequence[SliceRecord], steps: PostProcessing
) -> Iterator[PredictedSlice]:
    """The slices with their masks after the steps with the scope "patient".

    predictions: in any order. records: all slices, of which find_record_volumes makes volumes; the
    slices of one are kept until the last of them is predicted.
    """
    if not steps.has_steps("patient"):
        yield from predictions
        return
    volume_of = {record: volume for volume in find_record_volumes(records) for record in volume}
    pending: defaultdict[SliceRecord, dict[SliceRecord, PredictedSlice]] = defaultdict(dict)
    for prediction in predictions:
        volume = volume_of[prediction[0]]
        slices = pending[volume[0]]
        slices[prediction[0]] = prediction
        if len(slices) == len(volume):
            ordered = [pending[volume[0]][record] for record in volume]
            masks = process_volume(np.stack([mask for _, _, mask in ordered]), steps)
            for (record, y_true, _), mask in zip(ordered, masks, strict=True):
                yield record, y_true, mask
            del pending[volume[0]]
