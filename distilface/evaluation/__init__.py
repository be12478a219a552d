"""Scores of a model: MTEB's tasks, on the Hub's data or local files.

Imports settings, data, model and runtimes. Its modules import mteb, which takes seconds: so nothing is imported here.
"""
