"""What all packages share: settings, storage, bundles, the registry, command-line options.

A module belongs here only if two packages would be inconsistent with different versions of it.
Nothing here imports ray, tensorflow, tf_keras or another package.
"""
