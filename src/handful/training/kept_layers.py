"""The frozen layers of an encoder: run once for each example, if that is cheaper."""

from collections.abc import Mapping
from typing import TypeAlias

import torch

from handful.encoders.tuned import TunedEncoder
from handful.engine.cost import free_bytes
from handful.learners.learner import Learner
from handful.tasks.distribution import Rows

Uses: TypeAlias = Mapping[str, tuple[Rows | None, float]]
"""By split: the examples, None if they vary between draws, and how often each is seen, in the mean."""

WORTH = 2
"""How often an example must be used on average to be kept."""
MOST_BYTES, PART_OF_FREE = 2**30, 4
"""The most bytes to keep, and the share of free memory."""
SAMPLE, AT_ONCE = 8, 1024
"""Examples that are tried, and that are read at once."""


def encoder_of(learner: Learner) -> TunedEncoder | None:
    """The encoder that is a part of a learner, if some of its layers are frozen."""
    network = getattr(learner, "backbone", None)
    return network if isinstance(network, TunedEncoder) and network.lower is not None else None


def worth_keeping(encoder: TunedEncoder, uses: Uses, device: torch.device) -> list[str]:
    """The splits whose examples' lower-layer outputs are kept: those used often, as many as fit."""
    room = min(MOST_BYTES, free_bytes(device) // PART_OF_FREE)
    found = []
    for split, (rows, seen) in uses.items():
        if rows is None or seen < WORTH:
            continue
        [sample] = Rows(rows.raw, rows.ids[:: max(1, len(rows) // SAMPLE)][:SAMPLE], rows.prepare).parts(SAMPLE)
        each = encoder.bytes_below(sample.to(device))
        if each is not None and each * len(rows) <= room:
            room -= int(each * len(rows))
            found.append(split)
    return found


def keep(encoder: TunedEncoder, uses: Uses, splits: list[str], device: torch.device) -> int:
    """Compute and keep those of the examples of these splits; returns of how many."""
    count = 0
    for split in splits:
        rows = uses[split][0]
        assert rows is not None, "else they are not worth it"
        for inputs in rows.parts(AT_ONCE):
            encoder.keep_below(inputs.to(device))
        count += len(rows)
    return count


def forget(learner: Learner) -> None:
    """Let all layers run again."""
    encoder = encoder_of(learner)
    if encoder is not None:
        encoder.forget_below()
