"""The commands of `python -m inference`, one module for each group of them.

Each loads its settings, calls the package and prints. May import everything in inference;
TensorFlow, OpenVINO and Ray only inside a command.
"""
