"""Import of volumes: DICOM series and NIfTI files become an unsplit dataset of slices.

May import contract. Nothing else of trainer imports it but trainer/__main__.py.
"""
