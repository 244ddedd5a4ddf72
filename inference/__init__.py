"""From a bundle to masks: prediction of files, and the HTTP service. Imports no Keras.

May import cluster and contract.
"""
