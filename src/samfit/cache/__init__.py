"""Embeddings that an encoder without trained parts computes once: how big they are and where they lie."""
