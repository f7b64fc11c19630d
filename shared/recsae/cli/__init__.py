"""The `recsae` command: local platform, data, models, refreshes, concepts, steering."""
