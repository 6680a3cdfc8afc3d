"""A network that a file names, and that nobody trusts: nothing imports this module."""

from torch import nn


class Net(nn.Linear):
    """One layer."""

    def __init__(self, input_shape):
        super().__init__(input_shape[0], 4)
