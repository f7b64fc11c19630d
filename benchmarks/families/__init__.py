"""Every model family through the same path: trained, exported, served, interpreted, steered (`make bench-families`)."""
