"""Memory-augmented neural networks."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from handful.errors import UserError
from handful.functional.lstm_cell import lstm
from handful.learners import external_memory
from handful.learners.options import Count
from handful.learners.sequence_learner import SequenceLearner
from handful.types import TaskSpec

DECAY = 0.95
"""Of usage, per step: the paper's."""


class MemoryAugmentedNetwork(SequenceLearner):
    """Read the labeled examples one by one, write each into a memory, and predict from what a query finds there.

    *Meta-Learning with Memory-Augmented Neural Networks* (Santoro et al., 2016), https://arxiv.org/abs/1605.06065. The
    controller is an LSTM; memory is addressed by cosine similarity, and written where it was used least. The state is
    the memory's rows `(slots, width)` and the controller's hidden and cell values `(width,)`. Departures: an example
    comes together with its label, instead of a step before it, since the support is labeled; queries read and do not
    write, each on its own; the similarity has a learned sharpness, as in Graves et al., 2014
    (https://arxiv.org/abs/1410.5401); keys are made of the example as well as of the controller's output, and start as
    the example's rotation, which reading undoes: a fresh network already matches, where the paper's learns nothing
    for thousands of tasks. Label codes: see `SequenceLearner`.
    """

    key = "mann"

    def __init__(
        self, spec: TaskSpec, backbone: nn.Module, *, width: int = 64, slots: Count = 128, heads: Count = 1
    ) -> None:
        super().__init__(spec, backbone, width=width)
        if heads > slots:
            raise UserError(f"A memory has as many slots as heads that write to it, or more: not {slots} for {heads}.")
        self.slots, self.heads = slots, heads
        self.gates = nn.Linear(2 * width, 4 * width)
        self.of_tokens = nn.Linear(width, heads * width, bias=False)
        self.of_hidden = nn.Linear(width, heads * width)
        self.last = nn.Linear((heads + 1) * width, self.reply_size)
        # Of writing, sigmoid(gate) goes to the slot read last; at the start little.
        self.addressing = nn.ParameterDict({"log_sharpness": torch.tensor(math.log(10.0)), "gate": torch.tensor(-3.0)})
        with torch.no_grad():
            nn.init.orthogonal_(self.of_tokens.weight)
            nn.init.zeros_(self.of_hidden.weight)
            if self.classification:
                nn.init.zeros_(self.last.weight)
                self.last.weight[:, width:] = self.of_tokens.weight.mT[width // 2 :]

    def read(self, tokens: Tensor) -> dict[str, Any]:
        """The memory and the controller after the last token."""
        hidden = cell = tokens.new_zeros(self.width)
        memory = external_memory.empty(self.slots, self.width, self.heads, tokens)
        sharpness, gate = self.addressing["log_sharpness"].exp(), self.addressing["gate"].sigmoid()
        for token in tokens:
            hidden, cell = self._controlled(token, hidden, cell)
            keys = self._keys(token, hidden)
            memory = external_memory.write(memory, keys, gate, DECAY)
            _, memory = external_memory.read(memory, keys, sharpness)
        return {"rows": memory.rows, "hidden": hidden, "cell": cell}

    def reply(self, state: dict[str, Any], tokens: Tensor) -> Tensor:
        """One step of the controller for each query, and what its keys find."""
        hidden, _ = self._controlled(tokens, state["hidden"].expand_as(tokens), state["cell"])
        keys = self._keys(tokens, hidden).flatten(0, 1)  # (m * heads, width)
        found = external_memory.addressed(state["rows"], keys, self.addressing["log_sharpness"].exp()) @ state["rows"]
        replies: Tensor = self.last(torch.cat([hidden, found.reshape(len(tokens), -1)], -1))
        return replies

    def _controlled(self, tokens: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The controller's hidden and cell values after reading."""
        return lstm(self.gates(torch.cat([tokens, hidden], -1)), cell)

    def _keys(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Keys `(..., heads, width)`, which are also what is written."""
        keys: Tensor = self.of_tokens(tokens) + self.of_hidden(hidden)
        return keys.reshape(*keys.shape[:-1], self.heads, self.width)
