"""From a TOML file to a bundle: data, networks, training on Ray Train, export and evaluation.

May import cluster and contract. The order of the packages inside is in docs/architecture.md.
"""
