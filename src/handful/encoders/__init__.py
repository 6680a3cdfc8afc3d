"""Pretrained networks for texts and images: loading, embedding and tuning.

The only package that loads weights not trained by handful.
"""
