"""Sparse autoencoders: training (torch), export, evaluation and the runtime that serves them (numpy + onnxruntime)."""
