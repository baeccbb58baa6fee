"""The pure core: images to pixels, labels, manifests, settings, errors. Stdlib, numpy, Pillow and pydantic only."""
