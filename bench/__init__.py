"""Benchmarks: what the program costs, as ratios measured side by side in one process."""
