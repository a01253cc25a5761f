"""Sweeps for many seeds at once: values that are stored, products that are sums, parts that are known ahead."""
