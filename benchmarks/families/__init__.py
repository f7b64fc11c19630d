"""Every model family through the same path: trained, exported, served, interpreted and steered (`make bench-families`)."""
