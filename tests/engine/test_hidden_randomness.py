"""Operations that draw random numbers are found by what they do, and not by what they could do."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from handful.engine.hidden_randomness import drawing_operation

X = torch.ones(4, 6, 8)
DRAWING = {
    "dropout": (lambda: F.dropout(X, 0.3), "bernoulli_"),
    "recurrent": (nn.LSTM(8, 8, 2, dropout=0.3), "bernoulli_"),
    "stochastic depth": (lambda: X * X.new_empty(4, 1, 1).bernoulli_(0.8), "bernoulli_"),
    "feature dropout": (nn.FeatureAlphaDropout(0.3), "bernoulli_"),
    "attention": (lambda: F.scaled_dot_product_attention(X, X, X, dropout_p=0.3), "bernoulli_"),
    "noise": (lambda: X + torch.randn(8), "randn"),
    "fused dropout": (lambda: torch.native_dropout(X, 0.3, True), "native_dropout"),
}
STILL = {
    "attention without dropout": lambda: F.scaled_dot_product_attention(X, X, X),
    "evaluation mode": nn.LSTM(8, 8, 2, dropout=0.3).eval(),
    "linear": nn.Linear(8, 2),
}


def run(function):
    return function(X) if isinstance(function, nn.Module) else function()


@pytest.mark.parametrize(("function", "name"), DRAWING.values(), ids=DRAWING)
def test_an_operation_that_draws_is_named(function, name):
    assert drawing_operation(lambda: run(function)) == (name, False)


@pytest.mark.parametrize("function", STILL.values(), ids=STILL)
def test_an_operation_that_could_draw_and_does_not_is_not_found(function):
    assert drawing_operation(lambda: run(function)) is None


def test_a_generator_that_a_network_keeps_is_told_apart():
    generator = torch.Generator()
    assert drawing_operation(lambda: torch.rand(3, generator=generator)) == ("rand", True)


def test_an_error_ends_the_search():
    def failing():
        torch.rand(3)
        raise RuntimeError("no such luck")

    assert drawing_operation(failing) == ("rand", False)
    assert drawing_operation(lambda: 1 / 0) is None
