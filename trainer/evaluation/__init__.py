"""Metrics per patient of a bundle on a split, and the report.

May import trainer.data, trainer.visualization and contract. It needs no Keras: it runs the
SavedModel of the bundle.
"""
