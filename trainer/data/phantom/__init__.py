"""The built-in CT phantom: synthetic patients, so that every command runs without data.

May import contract alone.
"""
