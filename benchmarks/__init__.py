"""What hive's log costs and gains, as ratios measured in one run: `python -m benchmarks`."""
