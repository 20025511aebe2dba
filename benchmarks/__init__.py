"""Measurements: `python -m benchmarks` runs the quick ones, `python -m benchmarks.quality` the long one."""
