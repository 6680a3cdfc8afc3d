"""The simple neural attentive learner."""

import math
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.functional.attention import attend
from handful.functional.normalization import LayerNorm
from handful.learners.options import Count, OptionRange
from handful.learners.sequence_learner import SequenceLearner
from handful.types import TaskSpec

USUAL = 64
"""Inputs of a layer that learns well at the usual outer rates."""


class SNAIL(SequenceLearner):
    """Read the labeled examples as a sequence by temporal convolutions and attention, a query as what comes next.

    *A Simple Neural Attentive Meta-Learner* (Mishra et al., 2018), https://arxiv.org/abs/1707.03141: attention, dilated
    causal convolutions, attention, convolutions, attention, each adding channels to those before. The state is what a
    next column needs: keys and values of the attention, and of each convolution the one column that lies its dilation
    back. `reach` is how far back the convolutions look; attention sees supports of any length. Departures: dilations
    are 1, 2, 4, ... instead of 2, 4, 8, ...; columns are normalized before attention and prediction; a query attends to
    the support, not to itself; classification by label codes (see `SequenceLearner`); the first attention starts as
    matching, and the prediction as what it finds.
    """

    key = "snail"
    state_holds_examples = True

    def __init__(
        self,
        spec: TaskSpec,
        backbone: nn.Module,
        *,
        width: int = 64,
        filters: Count = 16,
        reach: Annotated[int, OptionRange("of 2 or more", lambda value: value >= 2)] = 64,
    ) -> None:
        super().__init__(spec, backbone, width=width)
        dilations = [2**i for i in range(math.ceil(math.log2(reach)))]
        self.blocks = nn.ModuleList([_Attention(width, width)])
        channels = 2 * width
        for _ in range(2):
            for dilation in dilations:
                self.blocks.append(_Convolution(channels, filters, dilation))
                channels += filters
            self.blocks.append(_Attention(channels, width))
            channels += width
        self.norm = LayerNorm(channels)
        self.last = _Linear(channels, self.reply_size)
        if self.classification:
            with torch.no_grad():
                nn.init.zeros_(self.last.weight)
                first = cast(_Attention, self.blocks[0]).value_proj
                rotation = first.weight * first.scale
                self.last.weight[:, width : 2 * width] = rotation.mT[width // 2 :] / self.last.scale

    def read(self, tokens: Tensor) -> dict[str, Any]:
        """What each block keeps for the next column."""
        kept = []
        for block in self.blocks:
            tokens, own = cast(_Attention | _Convolution, block).read(tokens)
            kept.append(own)
        return {"blocks": kept}

    def reply(self, state: dict[str, Any], tokens: Tensor) -> Tensor:
        """Each query passes all blocks as the next column."""
        for block, kept in zip(self.blocks, state["blocks"], strict=True):
            tokens = block(tokens, kept)
        replies: Tensor = self.last(self.norm(tokens))
        return replies


class _Linear(nn.Linear):
    """A linear layer whose weights are kept larger the more inputs it has, and count for less.

    So a step of Adam moves its outputs alike for any number of channels (*Tensor Programs V*, Yang et al., 2022,
    https://arxiv.org/abs/2203.03466).
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)
        self.scale = min(1.0, USUAL / inputs)
        with torch.no_grad():
            self.weight.div_(self.scale)

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`."""
        return F.linear(input * self.scale, self.weight, self.bias)


class _Attention(nn.Module):
    """Adds to each column `(channels,)` what it finds in those up to it: `(size,)` more channels."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.query_proj = _Linear(channels, size)
        self.key_proj = _Linear(channels, size, bias=False)  # a bias would add the same to all scores of a query
        self.value_proj = _Linear(channels, size)
        with torch.no_grad():
            nn.init.orthogonal_(self.query_proj.weight, gain=math.sqrt(2) / self.query_proj.scale)
            nn.init.orthogonal_(self.value_proj.weight, gain=1 / self.value_proj.scale)
            self.key_proj.weight.copy_(self.query_proj.weight)

    def read(self, columns: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sequence `(n, channels)` to `(n, channels + size)`; and its keys and values."""
        normal = self.norm(columns)
        kept = {"keys": self.key_proj(normal), "values": self.value_proj(normal)}
        past = torch.ones(len(columns), len(columns), dtype=torch.bool, device=columns.device).tril()
        return self(columns, kept, past), kept

    def forward(self, columns: Tensor, kept: dict[str, Tensor], mask: Tensor | None = None) -> Tensor:
        """Columns `(m, channels)`, each by itself, to `(m, channels + size)`."""
        queries = self.query_proj(self.norm(columns))
        return torch.cat([columns, attend(queries, kept["keys"], kept["values"], 1, mask)], -1)


class _Convolution(nn.Module):
    """Adds to each column `(channels,)` gated products with itself and the one `dilation` before: more channels."""

    def __init__(self, channels: int, filters: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.linear = _Linear(2 * channels, 2 * filters)

    def read(self, columns: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sequence `(n, channels)` to `(n, channels + filters)`; and the column that the next one looks back to."""
        before = F.pad(columns, (0, 0, self.dilation, 0))  # zeros before the first
        kept = {"before": before[len(columns)].clone()}
        return self(columns, {"before": before[: len(columns)]}), kept

    def forward(self, columns: Tensor, kept: dict[str, Tensor]) -> Tensor:
        """Columns `(m, channels)` to `(m, channels + filters)`."""
        pairs = torch.cat([columns, kept["before"].expand_as(columns)], -1)
        values, gates = self.linear(pairs).chunk(2, -1)
        return torch.cat([columns, values.tanh() * gates.sigmoid()], -1)
