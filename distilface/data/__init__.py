"""Text, scored pairs and parallel text: from files or the Hub to checked data sets."""
