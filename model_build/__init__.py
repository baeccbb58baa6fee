"""``python -m model_build``: a checkpoint becomes artifacts in the BentoML model store."""
