"""The sizes of training tasks in each block, if some of the user's tasks are smaller than requested."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Generator

from handful import streams
from handful.tasks.distribution import BLOCK, SPLITS, Sizes, TaskDistribution

NEAREST = 16
"""The fewest units, if available, that a block of small training tasks is drawn from."""


class Block(NamedTuple):
    """The common properties of the tasks of a block.

    left: query examples that the anchor has beside its support, if it is too small for the requested sizes; else None.
    """

    sizes: Sizes
    left: int | None = None


class TrainingSizes:
    """The sizes of each block of training tasks, chosen so that all usable units train, and the units of a block.

    A unit provides examples for support and query: the user's task, or a class of a pool. Each block of draws takes its
    sizes from one unit, its anchor: `shot`, and `query_shot` or as many queries as half of the units with more than a
    support have left, since with more queries fewer units would be large enough. If the anchor is too small for that,
    as many support examples as leave it a query, and as many queries as it has left. The anchor is drawn at random, the
    more often the more queries it gives, so that queries count alike. A block of small tasks is drawn from those units
    that are nearest in size to the anchor, `NEAREST` at least.

    rooms: of each unit, the most examples that its support and query can have together. Units with two train.
    left: `(unit, shot)`: the number of query examples that a unit is certain to have beside so large a support; 0 or
        less if it is too small.
    asked: the largest requested sizes.
    family: of each unit, where a task takes as many units of one family as its way. A unit must then have no more room
        than as many of its family.
    """

    def __init__(
        self,
        rooms: Mapping[int, int],
        left: Callable[[int, int], int],
        asked: Sizes,
        *,
        family: Callable[[int], int] = lambda unit: unit,
    ) -> None:
        self.rooms = {unit: room for unit, room in rooms.items() if room > 1}
        self.units = list(self.rooms)
        self.left, self.asked, self.family = left, asked, family
        of_large = sorted(left(unit, asked.shot) for unit, room in self.rooms.items() if room > asked.shot)
        self.typical_left = of_large[len(of_large) // 2] if of_large else 1
        self.of_anchors = [self.block_of(unit, asked) for unit in self.units]
        queries = [block.sizes.query_shot for block in self.of_anchors]
        cumulated = torch.tensor(queries, dtype=torch.float64, device="cpu").cumsum(0)
        self._cumulated = cumulated / cumulated[-1:]
        self._drawn_from: dict[Block, list[int]] = {}

    @property
    def varied(self) -> bool:
        """Whether some units are smaller than the requested sizes, and not all equally small."""
        return len({block.sizes for block in self.of_anchors}) > 1

    def block(self, asked: Sizes, generator: Generator) -> Block:
        """The common properties of the tasks of a block with these requested sizes; its generator draws the anchor."""
        drawn = torch.rand((), generator=generator, dtype=torch.float64, device="cpu")
        anchor = int(torch.searchsorted(self._cumulated, drawn, right=True))
        return self.block_of(self.units[anchor], asked)

    def block_of(self, anchor: int, asked: Sizes) -> Block:
        """That of a block with this anchor."""
        shot, query_shot = min(asked.shot, self.rooms[anchor] - 1), min(asked.query_shot, self.typical_left)
        left = self.left(anchor, shot)
        if shot == asked.shot and left >= query_shot:
            return Block(Sizes(asked.way, shot, query_shot))
        return Block(Sizes(asked.way, shot, min(left, query_shot)), left)

    def drawn_from(self, block: Block) -> list[int]:
        """The units that a block is drawn from."""
        if block not in self._drawn_from:
            left = {unit: self.left(unit, block.sizes.shot) for unit in self.units}
            fitting = [unit for unit in self.units if left[unit] >= block.sizes.query_shot]
            if block.left is not None and fitting:
                near = self._near(sorted(fitting, key=left.__getitem__), left, block)
                fitting = [unit for unit in fitting if unit in near]
            self._drawn_from[block] = fitting
        return self._drawn_from[block]

    def _near(self, fitting: list[int], left: Mapping[int, int], block: Block) -> set[int]:
        """The first of these units, which are in the order of their sizes, with others of their families for a task."""
        assert block.left is not None
        most = max(left[fitting[:NEAREST][-1]], block.left)
        near = [unit for unit in fitting if left[unit] <= most]
        counts = Counter(map(self.family, near))
        for unit in fitting[len(near) :]:
            if 0 < counts[self.family(unit)] < block.sizes.way:
                counts[self.family(unit)] += 1
                near.append(unit)
        return set(near)

    def described(self, units: str, examples: str, drawn: str) -> str:
        """How many units are smaller than the requested sizes, how often they are drawn, and with which sizes.

        Empty without such units.

        units, examples: their names in messages.
        drawn: the name of the whole in messages.
        """
        facts, blocks = [], self.of_anchors
        shot, asked = self.asked.shot, self.asked.query_shot
        query_shot = min(asked, self.typical_left)
        if blocks and query_shot < asked:
            facts.append(
                f"half of the training {units} with more than {shot} usable {examples} have at most "
                f"{shot + query_shot}, so that {query_shot} and not {asked} query {examples} are scored"
            )
        small = {unit for unit, block in zip(self.units, blocks, strict=True) if block.left is not None}
        if small:
            sources = {block: self.drawn_from(block) for block in blocks}
            of = {block: len(small.intersection(source)) / len(source) for block, source in sources.items()}
            queries = [block.sizes.query_shot for block in blocks]
            share = sum(count * of[block] for count, block in zip(queries, blocks, strict=True)) / sum(queries)
            facts.append(
                f"{len(small)} of {len(self.units)} training {units} have fewer than {shot + query_shot} usable "
                f"{examples} ({shot} to learn from and {query_shot} to be scored on): they are {100 * share:.3g} % of "
                f"the {drawn}, with {_numbers({block.sizes.shot for block in blocks})} support and "
                f"{_numbers(set(queries))} query {examples}"
            )
        return "; ".join(facts)


class UserTasks(TaskDistribution):
    """Tasks from the user's data, in which training tasks may be smaller than the requested sizes.

    Attributes:
        nouns: what messages call a unit (see `TrainingSizes`), its examples, and that of which small units are a share.
    """

    nouns: ClassVar[tuple[str, str, str]]

    @abstractmethod
    def training_sizes(self, way: int) -> TrainingSizes | None:
        """Those of training tasks of so many classes; None if tasks of the present split are as large as asked."""

    @property
    def varied(self) -> bool:
        """Also if training tasks are smaller than the requested sizes, and not all equally small."""
        training = self.training_sizes(self.sizes.smallest().way)
        return super().varied or (training is not None and training.varied)

    def small_tasks(self) -> str:
        """How many units are smaller than the requested sizes, how often they are drawn, and with which sizes.

        Of tasks with the fewest classes, where their number varies.
        """
        training = self.training_sizes(self.sizes.smallest().way)
        return training.described(*self.nouns) if training else ""

    def sizes_of(self, index: int) -> Sizes:
        """As everywhere, but in training no larger than the anchor of the block."""
        return self.block_at(index).sizes

    def block_at(self, index: int) -> Block:
        """The common properties of the tasks in the block of task `index`."""
        asked = super().sizes_of(index)
        training = self.training_sizes(asked.way)
        if training is None or not training.units:
            return Block(asked)
        generator = streams.block_anchor(self.seed, SPLITS.index(self.split_name), index // BLOCK)
        return training.block(asked, generator)


def _numbers(values: set[int]) -> str:
    return str(min(values)) if len(values) == 1 else f"{min(values)} to {max(values)}"
