"""Meta-training: the loop, the run on disk, checkpoints."""
