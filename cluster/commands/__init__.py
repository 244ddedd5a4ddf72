"""The commands of `python -m cluster`, one module for each group of them.

Each loads its settings, calls the package and prints. May import everything in cluster, boto3 and
Ray only inside a command.
"""
