"""Datasets: pairing, checks, splits by patient, cache, tf.data pipeline, augmentation, phantom.

May import trainer.visualization (for reports) and contract. dataset_index imports no TensorFlow.
"""
