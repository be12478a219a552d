"""Steps that make a student of an encoder: a layer cut, another vocabulary, shared layers over a narrow table."""
