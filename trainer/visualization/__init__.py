"""Overlays, image grids, curves and HTML pages. A leaf: imports nothing of trainer."""
