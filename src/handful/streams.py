"""The named random streams: every seeded generator of the package is made here.

Each function is one stream, and no two give the same generator, except that `pretraining` and `weights` both take the
plain seed. Older streams differ by a small number among their seeds, which never changes, so that recorded results
can be reproduced; the seeds of a new one begin with its name.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Generator


def seeded(*parts: int | str) -> Generator:
    """A generator whose seed is a hash of all parts: neighbors are unrelated."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


# Sources of tasks; a split is its place among `handful.tasks.distribution.SPLITS`


def task_draw(seed: int, split: int, index: int) -> Generator:
    """What a task is made of."""
    return seeded(seed, split, 0, index)


def block_sizes(seed: int, split: int, block: int) -> Generator:
    """How large the tasks of a block are."""
    return seeded(seed, split, 1, block)


def block_queries(seed: int, split: int, block: int) -> Generator:
    """How many queries the tasks of a block have, where that depends on the other sizes."""
    return seeded(seed, split, 2, block)


def block_anchor(seed: int, split: int, block: int) -> Generator:
    """Which of the user's tasks a block of training tasks takes its sizes from."""
    return seeded("block_anchor", seed, split, block)


def task_change(seed: int, split: int, index: int) -> Generator:
    """How augmentation changes a task."""
    return seeded("task_change", seed, split, index)


def table_layout(seed: int, support: list[int]) -> Generator:
    """Where the features of a drawn table go, by its support rows."""
    return seeded(seed, 5, *support)


def new_table_layout() -> Generator:
    """Where the features of a table go that a user adapts to: the same for every one."""
    return seeded("new_table_layout")


def name_order(seed: int) -> np.random.Generator:
    """The order of classes or tasks that is cut into splits."""
    return np.random.default_rng(seed)


def alphabet_order(seed: int) -> Generator:
    """The order of Omniglot's alphabets, of which the first validate."""
    return seeded(seed)


# Training


@contextmanager
def weights(seed: int) -> Iterator[None]:
    """Within it modules start from this seed, on the CPU, so that they have the same bits on every device.

    They draw from the global generator, which is then as it was before.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        yield


def pretraining(seed: int) -> Generator:
    """The examples of pre-training."""
    return Generator().manual_seed(seed)


def task_noise(seed: int, index: int) -> Generator:
    """The noise of the meta-loss of a training task."""
    return seeded(seed, 3, index)


def tuning_trial(seed: int, number: int) -> int:
    """The seed, below 2**32, of the sampler that proposes a trial."""
    return seeded("tuning_trial", seed, number).initial_seed() % 2**32


def probe() -> Generator:
    """What is drawn for its shape or its cost alone."""
    return seeded("probe")


# Evaluation


def pool_sample(seed: int) -> Generator:
    """The pooled examples in which the doctor looks for those of other splits."""
    return seeded(seed, 7)


def label_shuffle(seed: int, index: int, repeat: int) -> Generator:
    """The order of the support labels that the doctor shuffles."""
    return seeded(seed, 8, index, repeat)


def bootstrap(seed: int) -> Generator:
    """The resamples of tasks behind the interval of a data equivalence."""
    return seeded(seed, 9)
