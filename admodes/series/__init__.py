"""Taylor mode: truncated power series in the place of numbers, by the rules of the one table."""
