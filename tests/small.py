"""Settings whose training takes seconds, for every test that trains."""

FEW_SLICES = {
    "train_patients": 2,
    "valid_patients": 1,
    "test_patients": 1,
    "slices": 4,
    "size": 64,
}
"""[data.phantom]: 16 slices of 4 patients."""
NETWORK = {"image_size": 32, "num_layers": 2, "base_filters": 4, "dropout_rate": 0.0}
"""[network]: two levels, and nothing left to chance."""
