"""Benchmarks of the program's cost, as ratios to a baseline measured in the same run."""
