"""Training runs, their attempts and checkpoints."""
