"""The recommender service: serves models, exports activations, applies steering plans."""
