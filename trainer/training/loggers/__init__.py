"""What a run records of each epoch: tables, curves, TensorBoard, previews; RunLogger is the entry.

May import trainer.data, trainer.export and the packages below them.
"""
