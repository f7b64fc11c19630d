"""Recommenders: model families, their training and export, model bundles and the ONNX runtime that serves them."""
