"""The commands of `python -m trainer`, one module for each group of them.

Each loads its settings, calls the package and prints. May import everything in trainer, TensorFlow
and Ray only inside a command.
"""
