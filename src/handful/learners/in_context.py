"""In-context transformers."""

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.functional.attention import Attention
from handful.functional.normalization import LayerNorm
from handful.learners.learner import Race
from handful.learners.options import Count
from handful.learners.sequence_learner import SequenceLearner
from handful.types import TaskSpec


class InContextTransformer(SequenceLearner):
    """Let a transformer look from each query to the labeled examples; nothing is fitted to a task.

    *Transformer Neural Processes: Uncertainty-Aware Meta Learning Via Sequence Modeling* (Nguyen & Grover, 2022),
    https://arxiv.org/abs/2207.04179, in its diagonal form (TNP-D): support tokens attend to one another, query tokens
    to the support alone, and no position is encoded, so the order of the support means nothing. The state is what
    each layer attends to: its keys and values `(n, width)`. Departures: normalization before each layer; a query does
    not attend to itself; classification by label codes (see `SequenceLearner`); attention starts as matching (see
    `Attention`), and the reply as the half of the token that holds the label.
    """

    key = "in-context"
    candidate_for: ClassVar[dict[Race, int]] = {"vectors": 5, "rows": 9}
    state_holds_examples = True
    reads_order = False

    def __init__(
        self, spec: TaskSpec, backbone: nn.Module, *, width: int = 64, layers: Count = 2, heads: Count = 4
    ) -> None:
        super().__init__(spec, backbone, width=width)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.norm = LayerNorm(width)
        self.last = nn.Linear(width, self.reply_size)
        if self.classification:
            with torch.no_grad():
                self.last.weight.copy_(torch.eye(width)[width // 2 :])

    def read(self, tokens: Tensor) -> dict[str, Any]:
        """Keys and values of each layer."""
        kept = []
        for layer in self.layers:
            keys, values = cast(_Layer, layer).remembered(tokens)
            kept.append({"keys": keys, "values": values})
            tokens = layer(tokens, (keys, values))
        return {"layers": kept}

    def reply(self, state: dict[str, Any], tokens: Tensor) -> Tensor:
        """Each query passes all layers, attending to the support's tokens."""
        for layer, kept in zip(self.layers, state["layers"], strict=True):
            tokens = layer(tokens, (kept["keys"], kept["values"]))
        replies: Tensor = self.last(self.norm(tokens))
        return replies


class _Layer(nn.Module):
    """Attention to remembered tokens, then a network for each token; both add to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.network_norm = LayerNorm(width), LayerNorm(width)
        self.attention = Attention(width, heads)
        self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.outer.weight)

    def remembered(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the tokens `(n, width)`."""
        tokens = self.attention_norm(tokens)
        return self.attention.remembered(tokens, tokens)

    def forward(self, tokens: Tensor, remembered: tuple[Tensor, Tensor]) -> Tensor:
        """Tokens `(m, width)` after this layer; same shape."""
        tokens = tokens + self.attention.recall(self.attention_norm(tokens), remembered)
        changed: Tensor = self.outer(F.gelu(self.inner(self.network_norm(tokens))))
        return tokens + changed
