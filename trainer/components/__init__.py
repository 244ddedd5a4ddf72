"""Losses, metrics, optimizers, learning rate schedules and precision; imports contract only."""
