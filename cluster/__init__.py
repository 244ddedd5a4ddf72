"""Connections to Ray, jobs, capacity checks and cloud nodes."""
