"""Concepts: latents with a stable id, a label, evidence and scores; how they are described, verified and looked up."""
