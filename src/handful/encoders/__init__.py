"""Pretrained networks for texts and images: where they come from, what they compute, and how they are tuned.

The only place that loads weights which handful did not train.
"""
