"""Batching policies on a simulated device: ours beside others', and beside the best schedule there can be."""
