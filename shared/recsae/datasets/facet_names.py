"""How facets are named: "family=value", and families that are made, not read. Serving reads names and no tables.

Not here: facets themselves (`facets`).
"""

from __future__ import annotations

# Pairs of values, and groups of items consumed together.
CROSSED, LIKE = "pair", "like"
# Stands between the two facets of a pair.
BOTH = " ∩ "
