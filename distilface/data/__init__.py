"""Text, scored pairs and parallel text: from files or the Hub to checked data sets.

One reader of rows (:mod:`distilface.data.rows`) serves all of them. Imports settings, storage and Hub ids. Half of its
modules import datasets, and those that read lines do not: so nothing is imported here.
"""
