"""The HTTP edge: bodies to bytes, results to replies."""
