"""The commands of ``python -m loadtests``, a module each, and what they share."""
