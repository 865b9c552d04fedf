"""Score whole folders: find pictures, score them in batches, write records and heat maps."""
