"""Training: backbone conversion, teacher, losses and the loop; scoring needs nothing of it."""
