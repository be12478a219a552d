"""Publishing a model folder on the Hugging Face Hub: checks, a preview, one commit."""
