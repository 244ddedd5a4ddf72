"""Clusters on AWS: cluster files, resources, instance types and prices."""
