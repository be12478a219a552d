"""What computes embeddings: exported files on their runtimes."""
