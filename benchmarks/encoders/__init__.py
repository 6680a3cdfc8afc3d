"""Pretrained encoders, frozen and tuned."""
