"""The benchmarks of ``admodes bench``: ratios of what was measured side by side in one run."""
