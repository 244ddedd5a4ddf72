"""The HTTP service on Ray Serve, and its web page.

May import inference.predictor, cluster and contract.
"""
