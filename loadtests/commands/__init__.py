"""The commands of ``python -m loadtests``, a module each, with their options, their server and their console."""
