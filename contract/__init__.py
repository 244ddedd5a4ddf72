"""What the rooms must agree on: settings, storage, bundles, the registry, the shape of a command.

Admission rule: a thing enters only if two rooms would break should they disagree about it.
Nothing here may import ray, tensorflow, tf_keras or another room.
"""
