"""Differentiable mathematics of one task: inner loops, closed-form heads, attention, normalization."""
