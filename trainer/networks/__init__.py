"""The networks: one file each, registered in registry.py.

May import contract alone.
"""
