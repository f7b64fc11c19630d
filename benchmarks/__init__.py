"""Measurements that print their numbers; see README.md, "Benchmarks"."""
