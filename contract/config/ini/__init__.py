"""The INI dialect of the Antillia Tensorflow-Image-Segmentation projects, key by key.

Used by contract.config.ini_reader. May import the sections of contract.config.
"""
