"""The model folder: how it is written, read, identified and made of modules that every library knows."""
