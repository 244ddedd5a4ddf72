"""Connected components and holes of masks, of one slice or of the slices of a volume.

Every program that writes masks calls process_slice for each slice; where all slices of a volume are
available, process_volume follows. The classes of a mask are processed one after the other.
Foreground is connected through corners too (8 neighbours in a slice, 26 in a volume), background
only through edges or faces, so that no line of foreground leaks.

SciPy is imported by the functions that need it: it takes longer to import than everything else that
a process needs before it can predict, and most bundles have none of these steps.
"""

import numpy as np
from numpy.typing import NDArray

from contract.imaging.post_processing import MaskScope, PostProcessing

Mask = NDArray[np.uint8]


def process_slice(mask: Mask, steps: PostProcessing) -> Mask:
    """The mask [H, W] of class indices after the steps with the scope "slice"."""
    return _process(mask, steps, "slice")


def process_volume(masks: Mask, steps: PostProcessing) -> Mask:
    """The masks [slices, H, W] of a volume after the steps with the scope "patient".

    masks: in the order of the slices, each after process_slice. Distances do not matter: a voxel
    counts as one, whatever the spacing of slices and pixels is.
    """
    return _process(masks, steps, "patient")


def _process(mask: Mask, steps: PostProcessing, scope: MaskScope) -> Mask:
    if steps.largest_component == scope:
        mask = keep_largest_components(mask)
    if steps.fill_holes == scope:
        mask = fill_holes(mask)
    return mask


def keep_largest_components(mask: Mask) -> Mask:
    """The mask with the largest component of each class; of equal ones, the first is kept.

    mask: class indices of any number of axes.
    """
    from scipy import ndimage

    kept = mask.copy()
    structure = ndimage.generate_binary_structure(mask.ndim, mask.ndim)
    for index, box in _boxes(mask):
        components, count = ndimage.label(mask[box] == index, structure)
        if count > 1:
            sizes = np.bincount(components.ravel())
            sizes[0] = 0
            kept[box][(components > 0) & (components != sizes.argmax())] = 0
    return kept


def fill_holes(mask: Mask) -> Mask:
    """The mask with the holes of each class filled; pixels of other classes keep theirs.

    mask: class indices of any number of axes. A hole is background without a path to the border.
    """
    from scipy import ndimage

    filled = mask.copy()
    for index, box in _boxes(mask):
        inside = ndimage.binary_fill_holes(mask[box] == index)
        filled[box][inside & (filled[box] == 0)] = index
    return filled


def _boxes(mask: Mask) -> list[tuple[int, tuple[slice, ...]]]:
    """Each class of a mask and the smallest box around it, which holds its holes too."""
    from scipy import ndimage

    boxes = enumerate(ndimage.find_objects(mask), start=1)
    return [(index, box) for index, box in boxes if box is not None]
