"""Meta-models and adapted tasks, in memory and on disk."""
