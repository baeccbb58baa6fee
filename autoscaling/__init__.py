"""Simulated autoscalers on real traffic: the cost of a fleet and its late images. It knows nothing of serving."""
