"""``python -m offline``: every image below a folder gets its label, into one file."""
