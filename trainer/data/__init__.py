"""Slices and masks: where they lie, how they are split, what a worker sees of them."""
