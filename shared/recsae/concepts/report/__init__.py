"""The report of a dictionary: one HTML page that needs nothing else, for people who decide about a recommender."""

# Concepts told in full, by trust and by activation each.
FULL = 40
