"""Environment variables that TensorFlow reads when it is imported."""

import os

TENSORFLOW_VARIABLES = {"TF_USE_LEGACY_KERAS": "1", "TF_ENABLE_ONEDNN_OPTS": "1"}
"""The first makes `tf.keras` Keras 2, and Keras 3, a second to import, is not imported. The second
makes TensorFlow compute with oneDNN, which it does by itself only on CPUs with AVX-512 VNNI,
AVX-512 BF16 or AMX: on others a step takes a third to a half of the time (docs/lab-notes.md). It
has no effect on a GPU.
"""


def set_tensorflow_variables() -> None:
    """Set the variables for this process and its children; values set by the user are kept."""
    for name, value in TENSORFLOW_VARIABLES.items():
        os.environ.setdefault(name, value)
