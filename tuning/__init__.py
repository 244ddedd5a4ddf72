"""Sweeps with Ray Tune: from a TOML file to a better TOML file.

May import every other package. The scheduler decides on plain records; tune_callbacks and sweep
connect it to Ray Tune.
"""
