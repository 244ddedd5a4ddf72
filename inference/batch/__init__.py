"""Prediction of files, on one machine or on a Ray cluster.

May import inference.predictor, cluster and contract.
"""
