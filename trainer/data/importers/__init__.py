"""Import of volumes: DICOM series and NIfTI files become an unsplit dataset of slices.

May import contract and trainer.data.splits.
"""
