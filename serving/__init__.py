"""The HTTP layer: bodies to bytes, results to replies."""
