"""From pixels to probabilities: backends, batching, and the runner in its two placements."""
