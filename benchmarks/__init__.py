"""Side-by-side measurements. Each `python -m benchmarks.<name>` prints a table, then one line of JSON."""
