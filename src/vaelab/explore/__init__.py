"""Samples, reconstructions, interpolations and traversals."""
