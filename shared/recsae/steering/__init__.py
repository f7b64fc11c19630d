"""Steering: policies, the plans compiled from them, and the one function that applies them."""
