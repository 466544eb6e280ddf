"""Vectors of neurons, from the subject's own embeddings at their peaks, to find neurons by."""
