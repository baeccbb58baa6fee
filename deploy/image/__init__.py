"""The service's container image: what is in it (Containerfile), and the command that builds it."""
