"""Training: the loop, its processes (DDP) and checkpoints. Knows vectors, not crystals."""
