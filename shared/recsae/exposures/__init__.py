"""What was shown to whom under which policies: a sampled log of responses, its files and how they are read."""
