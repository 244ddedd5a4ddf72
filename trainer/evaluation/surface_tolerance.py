"""The default tolerance of the surface Dice, for commands that start without SciPy."""

SURFACE_TOLERANCE = 2.0
"""Distance at which two surfaces still agree: in mm if the spacing of the slices is known, else in
pixels."""
