"""The differentiable machinery: it knows tensors, modules and tasks, and no algorithm."""
