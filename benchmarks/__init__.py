"""What Crossroads costs, measured beside the alternatives in the same run: `python -m benchmarks`."""
