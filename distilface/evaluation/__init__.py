"""Scores of a model: MTEB's tasks, on the Hub's data or local files."""
