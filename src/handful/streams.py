"""The named random streams: every seeded generator of the package is made here.

Each function is one stream, and no two give the same generator, except that `pretraining` and `weights` both take the
plain seed. Older streams differ by a small number among their seeds, which never changes, so that recorded results
can be reproduced; the seeds of a new one begin with its name.
"""

import functools
import hashlib
import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, SupportsIndex

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from handful.errors import UserError

SEEDS = 2**64
"""A seed is below it, as PyTorch's generators need it."""


def checked_seed(seed: Any) -> int:
    """The seed as a plain number, which hashes like a plain one; `UserError` for other values."""
    if not isinstance(seed, SupportsIndex) or isinstance(seed, bool) or not 0 <= operator.index(seed) < SEEDS:
        raise UserError(
            f"The seed is a whole number from 0 to {SEEDS - 1} (2^64 - 1), not {seed!r}.",
            field=("seed",),
            hint="Set another {seed}.",
        )
    return operator.index(seed)


def seeded(*parts: int | str) -> Generator:
    """A generator whose seed is a hash of all parts: neighbors are unrelated."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


# Sources of tasks; a split is its place among `handful.tasks.distribution.SPLITS`


def task_draw(seed: int, split: int, index: int) -> Generator:
    """The random numbers of a task."""
    return seeded(seed, split, 0, index)


def block_sizes(seed: int, split: int, block: int) -> Generator:
    """How large the tasks of a block are."""
    return seeded(seed, split, 1, block)


def block_queries(seed: int, split: int, block: int) -> Generator:
    """The number of queries of a block's tasks, if it depends on the other sizes."""
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
    """The layout of a table's features when a user adapts: the same for every table."""
    return seeded("new_table_layout")


def alphabet_order(seed: int) -> Generator:
    """The order of Omniglot's alphabets, of which the first validate."""
    return seeded(seed)


def thinned_examples(seed: int) -> Generator:
    """Which examples of each class are left in a thinned pool."""
    return seeded("thinned_examples", seed)


# Training


@contextmanager
def weights(seed: int, device: str | torch.device = "cpu") -> Iterator["Drawing"]:
    """Within it modules of this thread start from this seed, on the CPU: the same bits for every device.

    The global generator stays as it is.

    device: where they go afterwards; for "meta" they are shapes alone already.
    """
    where = "meta" if torch.device(device).type == "meta" else "cpu"
    with torch.device(where), Drawing(checked_seed(seed)) as drawing:
        yield drawing


def pretraining(seed: int) -> Generator:
    """The examples of pre-training."""
    return Generator().manual_seed(checked_seed(seed))


def rows_to_correct_by(index: int) -> Generator:
    """Which rows of a training task a correction of a pooled model is tried with."""
    return seeded("correction", index)


def task_noise(seed: int, index: int) -> Generator:
    """The noise of the meta-loss of a training task."""
    return seeded(seed, 3, index)


@contextmanager
def network_draws(work: str, seed: int, index: int) -> Iterator["Drawing"]:
    """Within it networks of this thread that draw by themselves draw from this stream; the global generator stays.

    work: what is done, such as "pre-training".
    index: of the task or step.
    """
    with Drawing(seeded("network_draws", work, seed, index).initial_seed()) as drawing:
        yield drawing


def tuning_trial(seed: int, number: int) -> int:
    """The seed, below 2**32, of the sampler that proposes a trial."""
    return seeded("tuning_trial", seed, number).initial_seed() % 2**32


def boosting() -> int:
    """Seed of the rows for binning and early stopping of boosted trees, if rows are many."""
    return 0


def probe() -> Generator:
    """Numbers drawn only for their shape or cost."""
    return seeded("probe")


# Evaluation


def pool_sample(seed: int) -> Generator:
    """The pooled examples in which the doctor looks for those of other splits."""
    return seeded(seed, 7)


def label_shuffle(seed: int, index: int, repeat: int) -> Generator:
    """The order of the support labels that the doctor shuffles."""
    return seeded(seed, 8, index, repeat)


def encoder_size() -> Generator:
    """The examples by which the vectors of an encoder are scaled for the ladder."""
    return seeded("encoder_size")


def bootstrap(seed: int) -> Generator:
    """The resamples of tasks behind the interval of a data equivalence."""
    return seeded(seed, 9)


# Below, how modules that ask for no generator draw from one of ours


class Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The base class of modes that intercept all operations of this thread, without importing PyTorch's compiler, which
    takes seconds."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Drawing(Dispatch):
    """What operations of this thread draw comes from generators with this seed, as if it were the global one's.

    found: the first operation that did draw, and whether from a generator that the module keeps: many that can draw do
        not, at a dropout of 0.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: tuple[str, bool] | None = None
        self._seed = seed
        self._generators: dict[torch.device, Generator] = {}

    def of(self, device: torch.device) -> Generator:
        """The generator of numbers on this device."""
        if device not in self._generators:
            self._generators[device] = Generator(device).manual_seed(self._seed)
        return self._generators[device]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device") or next((a.device for a in args if isinstance(a, Tensor)), torch.device("cpu"))
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if device.type == "meta":  # nothing is drawn; PyTorch would import its compiler to fill a tensor with that
            return args[0] if func.overloadpacket.__name__.endswith("_") else func(*args, **kwargs)
        kept = kwargs.get("generator")
        generator = self.of(device) if kept is None else kept
        before = None if self.found else generator.get_state()
        taking = _taking_a_generator(func)
        if taking is not None:
            result = taking(*args, **kwargs | {"generator": generator})
        else:
            result = _with_global(generator, lambda: func(*args, **kwargs))
        if before is not None and not torch.equal(generator.get_state(), before):
            self.found = func.overloadpacket.__name__, kept is not None
        return result


_swapping = threading.Lock()


def _with_global(generator: Generator, draw: Callable[[], Any]) -> Any:
    """`draw` with the global generator in the state of this one, which goes on; the global one is then as it was."""
    gpu = generator.device if generator.device.type == "cuda" else None
    with _swapping, torch.random.fork_rng([] if gpu is None else [gpu]):
        if gpu is None:
            torch.set_rng_state(generator.get_state())
        else:
            torch.cuda.set_rng_state(generator.get_state(), gpu)
        result = draw()
        generator.set_state(torch.get_rng_state() if gpu is None else torch.cuda.get_rng_state(gpu))
        return result


@functools.cache
def _taking_a_generator(operation: Any) -> Any | None:
    """The overload of an operation that takes the same arguments and a generator; None without one."""
    names = [argument.name for argument in operation._schema.arguments]
    if "generator" in names:
        return operation
    packet = operation.overloadpacket
    for overload in (getattr(packet, name) for name in packet.overloads()):
        others = [argument.name for argument in overload._schema.arguments]
        if "generator" in others and [name for name in others if name != "generator"] == names:
            return overload
    return None
