"""The interpreter service: explains, observes, owns policies and plans, fronts the pipeline."""
