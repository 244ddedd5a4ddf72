"""Losses, metrics, optimizers, learning rate schedules, precision, and the summary of a network.

May import contract, networks and visualization."""
