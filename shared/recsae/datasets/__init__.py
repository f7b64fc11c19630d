"""Data sets: loading, facets, splits, and a generator with known truth."""
