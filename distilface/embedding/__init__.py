"""Embeddings on disk: a teacher's, computed once, and those of a file of text of any size."""
