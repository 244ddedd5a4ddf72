"""Training on Ray Train: launcher, worker loop, checkpoints, and the record of a run.

May import every other package of trainer except evaluation. The launcher and run_store import
no TensorFlow, so that a driver starts without it.
"""
