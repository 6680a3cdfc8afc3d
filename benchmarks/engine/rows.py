"""The rows of the benchmark: which implementations do which workload, on how many threads.

To add one is to add it to `ROWS` or `MEMORY_ROWS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.engine.workloads import HEAD, MINI_IMAGENET, OMNIGLOT, PROTONET, SINE, TRANSFORMER, Workload
from benchmarks.tiny import TINY


@dataclass(frozen=True)
class Implementation:
    """A module of this package with a `prepare(workload, dtype, **options)`.

    peer: whether it is one of the PyTorch peers, of which the fastest is the measure of the others.
    """

    module: str
    peer: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


IMPLEMENTATIONS = {
    "plain loop": Implementation("plain", peer=True),
    "higher": Implementation("with_higher", peer=True),
    "TorchOpt": Implementation("with_torchopt", peer=True),
    "learn2learn": Implementation("with_learn2learn", peer=True),
    "easyfsl": Implementation("with_easyfsl", peer=True),
    "JAX": Implementation("with_jax"),
    "handful": Implementation("with_handful"),
    "handful compiled": Implementation("with_handful", options={"compiled": True}),
    "handful recompute": Implementation("with_handful", options={"memory": "recompute"}),
    "handful sqrt": Implementation("with_handful", options={"memory": "sqrt"}),
}

REFERENCE = "plain loop"
"""The implementation whose meta-gradient the others are compared with."""


@dataclass(frozen=True)
class Aim:
    """How many times as fast as another one an implementation should be. against: None is the fastest PyTorch peer."""

    of: str
    times: float
    against: str | None = None


@dataclass(frozen=True)
class Row:
    """A comparison of step times. quick: also in a quick run."""

    group: str
    workload: Workload
    implementations: tuple[str, ...]
    threads: int = 1
    aims: tuple[Aim, ...] = ()
    quick: bool = True

    @property
    def title(self) -> str:
        """How the table names it."""
        return f"{self.group} {self.workload.key}, {self.threads} thread{'s' * (self.threads > 1)}"


@dataclass(frozen=True)
class MemoryRow:
    """A comparison of peak memory; each implementation runs in a fresh process. quick: also in a quick run."""

    workload: Workload
    implementations: tuple[str, ...]
    quick: bool = True
    group: str = "memory"

    @property
    def title(self) -> str:
        """How the table names it."""
        return f"memory {self.workload.key}"


LOOPS = ("plain loop", "higher", "TorchOpt")
MAML = (*LOOPS, "learn2learn")
MEMORIES = (*LOOPS, "handful", "handful recompute", "handful sqrt")

ROWS = (
    *(
        Row(
            "W1",
            SINE.with_steps(steps),
            (*MAML, "JAX", "handful", "handful compiled"),
            aims=(
                Aim("handful", 5.0, "TorchOpt"),
                Aim("handful compiled", 25.0, "TorchOpt"),
                Aim("handful compiled", 35.0, "higher"),
                Aim("handful compiled", 0.8, "JAX"),
            ),
        )
        for steps in (1, 5)
    ),
    *(
        Row(
            "W2",
            OMNIGLOT.with_steps(steps),
            (*MAML, "handful"),
            threads=threads,
            aims=(Aim("handful", 1.7 if threads == 2 else 1.5 if steps == 1 else 1.4),),
        )
        for steps in (1, 5)
        for threads in (1, 2)
    ),
    Row("W3", MINI_IMAGENET.with_steps(5), (*MAML, "handful"), aims=(Aim("handful", 1.6),)),
    Row("W3", MINI_IMAGENET.with_steps(5), (*MAML, "handful"), threads=2, aims=(Aim("handful", 1.6),), quick=False),
    Row("W4", HEAD.with_steps(5), (*LOOPS, "JAX", "handful"), aims=(Aim("handful", 4.0), Aim("handful", 1.2, "JAX"))),
    Row("W5", PROTONET, ("plain loop", "easyfsl", "handful"), aims=(Aim("handful", 1.7),)),
    Row("W5", PROTONET, ("plain loop", "easyfsl", "handful"), threads=2, aims=(Aim("handful", 1.7),), quick=False),
)

MEMORY_ROWS = (
    *(MemoryRow(TRANSFORMER.with_steps(steps), MEMORIES, quick=steps in (1, 64)) for steps in (1, 4, 16, 64)),
    *(MemoryRow(replace(OMNIGLOT, tasks=1).with_steps(steps), MEMORIES, quick=steps == 5) for steps in (1, 5)),
)
"""One task each: what grows with tasks is the plan's choice, what grows with steps is the method's need."""

if TINY:  # one of each group, against a peer
    ROWS = tuple(
        replace(row, workload=row.workload.tiny(), implementations=(REFERENCE, row.implementations[1], "handful"))
        for row in {row.group: row for row in ROWS if row.quick}.values()
    )
    MEMORY_ROWS = (MemoryRow(MEMORY_ROWS[0].workload.tiny(), (REFERENCE, "higher", "handful recompute")),)
