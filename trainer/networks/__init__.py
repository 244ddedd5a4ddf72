"""The networks, one file each, all built the same way."""
