"""The differentiable machinery: tensors, modules and tasks, independent of algorithms."""
