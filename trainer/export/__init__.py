"""Export of trained weights as a bundle.

May import trainer.data, trainer.networks and contract. weights.py imports no TensorFlow.
"""
