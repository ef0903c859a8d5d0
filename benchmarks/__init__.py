"""Models, peers and measurements; run `python -m benchmarks.compare` from the repository's root."""
