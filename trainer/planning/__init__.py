"""The choice of settings for a dataset, the machines and a time: `segfleet plan`.

As nnU-Net does (Isensee 2021, doi:10.1038/s41592-020-01008-z), it chooses by rules from a
fingerprint of the dataset. May import all of trainer but cross_validation.
"""
