"""Drift of concepts: additive counters, panes of them by time, and the comparison with a frozen reference."""
