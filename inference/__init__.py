"""From a bundle to masks: offline, over HTTP with Ray Serve, and the page."""
