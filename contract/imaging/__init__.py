"""Decoding and encoding of images and masks: one decoder for training and serving.

May import contract.errors and contract.storage.
"""
