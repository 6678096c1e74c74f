"""Benchmarks of hive's log, as ratios measured in one run: `python -m benchmarks`."""
