"""A language model as describer and verifier, through any OpenAI-compatible chat endpoint; off unless one is set."""
