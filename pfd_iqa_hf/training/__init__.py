"""Training: backbone conversion, the teacher, the losses and the loop; nothing here is needed to score."""
