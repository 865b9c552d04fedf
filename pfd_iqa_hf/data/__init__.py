"""Pictures and human scores: dataset readers, splits and synthetic distortions."""
