"""From a TOML file to a better TOML file: sweeps with Ray Tune."""
