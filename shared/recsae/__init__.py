"""RecSAE: sparse autoencoders for recommendation models in production."""

__version__ = "0.1.0"
