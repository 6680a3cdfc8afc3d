"""Attention against PyTorch's own, and its derivatives against finite differences."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from handful.errors import UserError
from handful.functional.attention import Attention, attend


def rows(*counts, width=6):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, width, generator=generator, dtype=torch.float64) for count in counts]


@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_scaled_dot_product_attention_per_head(heads, masked):
    queries, keys, values = rows(4, 5, 5)
    mask = torch.ones(4, 5, dtype=torch.bool).tril(1) if masked else None
    split = [part.view(len(part), heads, -1).transpose(0, 1) for part in (queries, keys, values)]
    expected = F.scaled_dot_product_attention(*split, attn_mask=mask).transpose(0, 1).reshape(4, 6)
    torch.testing.assert_close(attend(queries, keys, values, heads, mask), expected)


def test_the_module_is_pytorchs_multihead_attention_with_the_same_weights():
    own, native = Attention(6, 2).double(), nn.MultiheadAttention(6, 2, dtype=torch.float64)
    with torch.no_grad():
        linear = (own.query_proj, own.key_proj, own.value_proj)
        native.in_proj_weight.copy_(torch.cat([layer.weight for layer in linear]))
        native.in_proj_bias.copy_(torch.cat([own.query_proj.bias, torch.zeros(6), own.value_proj.bias]))
        native.out_proj.load_state_dict(own.out_proj.state_dict())
    queries, keys, values = rows(4, 5, 5)
    torch.testing.assert_close(own(queries, keys, values), native(queries, keys, values)[0])


def test_without_keys_the_answer_is_zero():
    queries, nothing = rows(3, 0)
    assert torch.equal(attend(queries, nothing, nothing, 2), torch.zeros(3, 6, dtype=torch.float64))


def test_it_is_differentiable_twice_under_vmap():
    queries, keys, values = rows(3, 4, 4)

    def total(scale):
        return attend(scale * queries, keys, values, 2).square().sum()

    scales = torch.tensor([0.5, 1.5], dtype=torch.float64)
    curvature = torch.func.vmap(torch.func.grad(torch.func.grad(total)))(scales)
    size = 1e-4
    measured = torch.stack([total(s + size) - 2 * total(s) + total(s - size) for s in scales]) / size**2
    torch.testing.assert_close(curvature, measured, rtol=1e-5, atol=1e-6)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(UserError, match="4 heads do not divide 6"):
        Attention(6, 4)
