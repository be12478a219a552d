"""The model card: sections made of ``run.json``, the exports, the results and the sources of a model."""
