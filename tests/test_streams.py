"""Every seeded generator is a named stream, and no two streams are the same."""

import ast
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import handful
from handful import LEARNERS, Settings, streams
from handful.errors import UserError
from handful.tasks.opening import open_tasks
from handful.tasks.sine import Sine
from handful.types import TaskSpec

ROOT = Path(handful.__file__).parent
OTHERS = sorted(path for path in ROOT.rglob("*.py") if path != Path(streams.__file__))
NAMED = {
    name: stream
    for name, stream in vars(streams).items()
    if inspect.isfunction(stream)
    and stream.__module__ == streams.__name__
    and name not in ("seeded", "checked_seed")
    and name[0] != "_"
}

VALUES = {"split": range(3), "support": [[3], [0, 4], [2, 0, 1], [1, 0, 2, 5]], "device": ["cpu"]}
"""Of the parameters that are not any number."""

MAKERS = {"Generator", "manual_seed", "manual_seed_all", "seed", "default_rng", "RandomState", "SeedSequence", "Random"}
MAKERS |= {"fork_rng", "PCG64", "MT19937", "Philox"}
"""Names that make or seed a generator when they are called."""


def seed_of(stream):
    """What tells a stream from others; None where it is of no torch generator."""
    if isinstance(stream, torch.Generator):
        return stream.initial_seed()
    if isinstance(stream, AbstractContextManager):
        with stream as drawing:
            return drawing.of(torch.device("cpu")).initial_seed()
    assert isinstance(stream, np.random.Generator | int)
    return None


TAKING = {
    "open_tasks": lambda seed: open_tasks("nowhere.csv", label="label", seed=seed),
    "sine": lambda seed: Sine(seed=seed),
    "build": lambda seed: LEARNERS["maml"].build(TaskSpec("regression", (1,), 1), backbone="mlp", seed=seed),
    "settings": lambda seed: Settings(seed=seed),
    "pre-training": streams.pretraining,
}


@pytest.mark.parametrize("take", TAKING.values(), ids=TAKING)
@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "3", None, True])
def test_what_is_no_seed_is_told_before_anything_else(take, seed):
    with pytest.raises(UserError, match=r"whole number"):
        take(seed)


@pytest.mark.parametrize("take", [take for name, take in TAKING.items() if name != "open_tasks"])
@pytest.mark.parametrize("seed", [0, 2**64 - 1, np.int64(3), np.uint64(2**64 - 1)])
def test_every_other_one_is_taken(take, seed):
    take(seed)


def test_a_number_of_numpy_is_the_same_seed():
    one, other = Sine(seed=3).task(0), Sine(seed=np.int64(3)).task(0)
    assert torch.equal(one.support.inputs, other.support.inputs)


def test_no_two_streams_are_the_same():
    names = {}
    for name, stream in NAMED.items():
        parameters = inspect.signature(stream).parameters
        for arguments in product(*(VALUES.get(parameter, range(12)) for parameter in parameters)):
            seed = seed_of(stream(*arguments))
            if seed is None or (seed < 2**32 and name in ("weights", "pretraining")):
                continue
            known = names.setdefault(seed, (name, arguments))
            assert known == (name, arguments), "two streams with one seed"
    assert len({name for name, _ in names.values()}) > 10


@pytest.mark.parametrize(
    ("stream", "seed"),
    [
        (streams.task_draw(3, 1, 7), 3931560895823975220),
        (streams.block_sizes(3, 1, 7), 6870256147641024372),
        (streams.block_queries(3, 1, 7), 8441097680710320384),
        (streams.table_layout(3, [4, 1]), 4234232437004846848),
        (streams.alphabet_order(3), 363018757033614945),
        (streams.pretraining(3), 3),
        (streams.task_noise(3, 7), 9028594877353515527),
        (streams.pool_sample(3), 3386665891843214296),
        (streams.label_shuffle(3, 7, 1), 3254458170786821038),
        (streams.bootstrap(3), 5495626337664232661),
    ],
)
def test_streams_of_recorded_results_keep_their_numbers(stream, seed):
    assert stream.initial_seed() == seed


DRAWN = {
    "uniform": lambda: torch.empty(40).uniform_(-1, 2),
    "linear": lambda: nn.Linear(3, 4).weight,
    "rand": lambda: torch.rand(3, 20, dtype=torch.float64),
    "randn": lambda: torch.randn(50),
    "like": lambda: torch.randn_like(torch.ones(2, 3)),
    "permutation": lambda: torch.randperm(30),
    "whole numbers": lambda: torch.randint(3, 70000, (9,)),
    "truncated": lambda: nn.init.trunc_normal_(torch.empty(20)),
    "dropout": lambda: nn.functional.dropout(torch.ones(40)),
    "without an overload that takes a generator": lambda: torch.ops.aten.native_dropout(torch.ones(40), 0.5, True)[0],
    "distribution": lambda: torch.distributions.Gamma(2.0, 1.0).sample((5,)),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_weights_draw_what_the_seeded_global_generator_would_and_leave_it_alone(draw):
    torch.manual_seed(5)
    expected = [draw().detach(), draw().detach()]
    torch.manual_seed(9)
    before = torch.get_rng_state()
    with streams.weights(5):
        found = [draw().detach(), draw().detach()]
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_of_two_threads_do_not_meet():
    """Nor does a draw of the host program's come between: a global generator would be shared by all of them."""
    met = threading.Barrier(2, timeout=20)

    def made(seed):
        with streams.weights(seed):
            first = torch.rand(2)
            met.wait()
            return torch.cat([first, torch.rand(2)])

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(made, [1, 2]))
    for seed, drawn in zip([1, 2], found, strict=True):
        assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(seed)))


def test_weights_draw_nothing_for_tensors_without_numbers():
    with streams.weights(5):
        assert torch.empty(3, device="meta").normal_().is_meta
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))


def test_neighbors_are_unrelated():
    seeds = {streams.seeded(*parts).initial_seed() for parts in [(0, 1), (0, 2), (1, 0), (0,), ("0", 1)]}
    assert len(seeds) == 5


def made(tree: ast.AST) -> list[str]:
    """Where code makes or seeds a generator, or takes the nameless stream."""
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            states = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "random_state"]
            if name in MAKERS | {"seeded"} or any(not state.startswith("streams.") for state in states):
                wrong.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Import):
            wrong += [f"line {node.lineno}: import random" for alias in node.names if alias.name == "random"]
        elif isinstance(node, ast.ImportFrom) and node.module == "random":
            wrong.append(f"line {node.lineno}: from random")
    return wrong


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_seeded_generators_are_made_in_one_place(path):
    assert not made(ast.parse(path.read_text()))


@pytest.mark.parametrize(
    "code",
    [
        "torch.Generator().manual_seed(0)",
        "Generator(device='cpu')",
        "torch.manual_seed(0)",
        "np.random.default_rng(0)",
        "np.random.seed(0)",
        "np.random.RandomState(0)",
        "KMeans(3, random_state=0)",
        "with torch.random.fork_rng():\n    pass",
        "import random",
        "from random import shuffle",
        "seeded(0, 1)",
    ],
)
def test_a_generator_made_elsewhere_is_seen(code):
    assert made(ast.parse(code))
