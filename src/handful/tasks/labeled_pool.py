"""A labeled pool: N-way K-shot tasks drawn from examples that bear global class labels."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Generator, Tensor, nn

from handful import streams
from handful.errors import DataError
from handful.functional.own_settings import own_settings
from handful.notes import note
from handful.pipelines.pipeline import prepared
from handful.tasks.distribution import (
    SPLITS,
    Manifest,
    Pool,
    Rows,
    Size,
    SizeRanges,
    Sizes,
    Split,
    in_order,
    owned,
)
from handful.tasks.features import Features
from handful.tasks.training_sizes import Block, TrainingSizes, UserTasks
from handful.types import Examples, Task, TaskSpec

REDRAWS = 200


class Draw(NamedTuple):
    """Which examples make a task.

    classes: `(way,)`.
    support, query: example ids `(way * shot,)`, class by class.
    """

    classes: Tensor
    support: Tensor
    query: Tensor


class LabeledPool(UserTasks):
    """N-way K-shot tasks from labeled examples, split by class.

    inputs: `(n, *raw_shape)`, kept as they are and turned into floats by `prepare` when a task is drawn.
    labels: `(n,)` class ids.
    names: of the classes.
    groups: `(n,)` ids or None: support and query of a task never share a group (one writer, video, patient).
    order: `(n,)` places in time or None: all support examples of a task are before all of its query examples, see
        `_in_order`.
    splits: class ids of each split.
    repeats: draw with replacement, for sources whose examples vary between draws.
    families: of each class, `(classes,)` ids or None: the classes of a task are of one family (letters of one alphabet,
        intents of one domain), which makes them hard to distinguish.
    copy: whether tensors are copied, so that later changes by the caller do not change tasks.

    Which classes are used: in training, all that have two examples and, of their family, as many others as a task
    takes, see `TrainingSizes`. In validation and test, classes have to have shot + query_shot. `check` notes what is
    left out.
    """

    default_sizes = SizeRanges(way=5, shot=1, query_shot=15)
    nouns = ("classes", "examples", "classes drawn")
    family: ClassVar[str] = "family"
    """The name of a family."""

    @own_settings()
    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        names: Sequence[str],
        *,
        splits: Mapping[Split, Sequence[int]],
        groups: Tensor | None = None,
        order: Tensor | None = None,
        repeats: bool = False,
        families: Tensor | None = None,
        seed: int = 0,
        copy: bool = True,
    ) -> None:
        super().__init__(seed=seed)
        inputs, labels, groups, order = owned(copy=copy, inputs=inputs, labels=labels, groups=groups, order=order)
        self.inputs, self.labels, self.names = inputs, labels, list(names)
        self.groups, self.order = groups, order
        self.repeats, self.families = repeats, None if families is None else families.clone()
        self.splits = {on: torch.tensor(sorted(splits[on]), dtype=torch.long) for on in SPLITS}
        self.counts = torch.bincount(labels, minlength=len(self.names))  # examples of each class
        self.members = list(torch.split(in_order(labels, order), self.counts.tolist()))
        self._training_sizes: dict[tuple[SizeRanges, int], TrainingSizes] = {}  # shared by all copies
        if groups is not None:
            count = int(groups.max()) + 1
            self.has_group = torch.zeros(len(self.names), count, dtype=torch.bool)
            self.has_group[labels, groups] = True
        self.query_given = False
        self.sizes = self._fitting_sizes()

    def _fitting_sizes(self) -> SizeRanges:
        """The default sizes, or as much of them as the classes of all splits have."""
        way, shot, _ = astuple(self.default_sizes.largest())
        if self.repeats:
            return self.default_sizes
        rooms = self._rooms_outside_training(way)
        shot = max(1, min([shot, *(room - 1 for room in rooms)]))
        if self.families is None:
            enough = [int((self.counts[classes] > shot).sum()) for classes in self.splits.values()]
            way = max(2, min(way, *enough))
        return SizeRanges(way, shot, self._fitting_queries(way, shot))

    def _fitting_queries(self, way: int, shot: int) -> int:
        """As many queries as by default, or as half of the classes have that have more than the support."""
        most = self.default_sizes.largest().query_shot
        if self.repeats:
            return most
        return max(1, min([most, *(room - shot for room in self._rooms_outside_training(way, shot))]))

    def _rooms_outside_training(self, way: int, shot: int = 0) -> list[int]:
        """Of validation and of test, how many examples half of the classes have, of those with more than a support."""
        found = []
        for on in ("val", "test"):
            rooms = sorted((room for room in self._rooms(way, on).values() if room > max(1, shot)), reverse=True)
            if len(rooms) >= way:
                found.append(rooms[max(way, (len(rooms) + 1) // 2) - 1])
        return found

    def with_sizes(self, way: Size | None = None, shot: Size | None = None, query_shot: Size | None = None) -> Self:
        """The same pool with other sizes; queries that are not given are as many as classes have."""
        given = self.query_given or query_shot is not None
        if not given:
            asked = SizeRanges(
                self.sizes.way if way is None else way, self.sizes.shot if shot is None else shot
            ).largest()
            query_shot = self._fitting_queries(asked.way, asked.shot)
        other = super().with_sizes(way, shot, query_shot)
        other.query_given = given
        return other

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """Classification with class numbers drawn anew per task."""
        shape = tuple(self.prepare(self.inputs[:1], streams.probe()).shape[1:])
        return TaskSpec("classification", shape, sizes.way, "permuted")

    def prepare(self, raw: Tensor, generator: Generator) -> Tensor:
        """Raw examples `(n, *raw_shape)` as a learner sees them `(n, *input_shape)`; bytes become 0 to 1."""
        if isinstance(self.inputs, Features):
            return raw
        return self.pipeline.prepare(raw) if self.pipeline else prepared(raw)

    def mapped(self, network: nn.Module) -> Self | None:
        """The same tasks on features; None if examples vary between draws or depend on one another."""
        if not self.nested or not self._the_same_each_time:
            return None
        other = copy.copy(self)
        other.inputs = Features.of(self.inputs, self.pipeline.prepare if self.pipeline else prepared, network)
        return other

    @property
    def _the_same_each_time(self) -> bool:
        return not self.repeats and type(self).prepare is LabeledPool.prepare

    def rows(self) -> Rows | None:
        """All examples of the classes of the split; None if they vary between draws."""
        if isinstance(self.inputs, Features) or not self._the_same_each_time:
            return None
        ids = torch.cat([self.members[label] for label in self.splits[self.split_name].tolist()])
        return Rows(self.inputs, ids, self.pipeline.prepare if self.pipeline else prepared)

    def thinned(self, per_class: int) -> Self:
        """The same pool with so many examples of each class at most, drawn by its seed.

        Where groups or an order divide support and query, all stay: some of them may make no task. Without a number of
        queries, all remaining examples are queries. `check` verifies that tasks of the sizes exist.
        """
        if self.groups is not None or self.order is not None:
            return self
        other = copy.copy(self)
        generator = streams.thinned_examples(self.seed)
        other.members = [
            own[torch.randperm(len(own), generator=generator)[:per_class].sort().values] for own in self.members
        ]
        other.counts = self.counts.clamp(max=per_class)
        other._training_sizes = {}
        if not self.query_given:
            largest = self.sizes.largest()
            other.sizes = replace(self.sizes, query_shot=other._fitting_queries(largest.way, largest.shot))
        return other

    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        """Draw classes, then disjoint support and query examples of each."""
        draw = self.draw(generator, sizes)
        ids = torch.cat([draw.support, draw.query])
        inputs = self.prepare(self.inputs[ids], generator)
        count = len(draw.support)
        return self._task(draw, inputs[:count], inputs[count:])

    def draw(self, generator: Generator, sizes: Sizes) -> Draw:
        """The examples of one task."""
        way, shot, query_shot = sizes.way, sizes.shot, sizes.query_shot
        for classes in self._drawn_from(sizes):
            for _ in range(REDRAWS):
                chosen = self._classes(classes, way, generator)
                drawn = self._examples(chosen, shot, query_shot, generator)
                if drawn is not None:
                    return Draw(chosen, *drawn)
        raise DataError(
            f"No task with {way} classes, {shot} support and {query_shot} query examples was found in {REDRAWS} draws "
            f"with support and query in different groups, or in order.",
            code="too-few-examples",
            hint="Lower {way}, {shot} or {query_shot}, or remove {group} or {order}.",
        )

    def _drawn_from(self, sizes: Sizes) -> list[Tensor]:
        """The classes for tasks of these sizes; in training, then those that are large enough for all that is asked.

        The latter for where groups or an order leave no task of the former.
        """
        asked, training = self.sizes.smallest(), self.training_sizes(sizes.way)
        if training is None:
            return [self.eligible(sizes)]
        if sizes.shot >= asked.shot and sizes.query_shot >= min(asked.query_shot, training.typical_left):
            fitting = self.eligible(sizes)
        else:
            fitting = torch.tensor(training.drawn_from(Block(sizes, left=sizes.query_shot)), dtype=torch.long)
        return [fitting, self.eligible(self.sizes.largest())]

    def training_sizes(self, way: int) -> TrainingSizes | None:
        """Those of training tasks of so many classes; None in other splits, and where examples do not run out."""
        if self.split_name != "train" or self.repeats:
            return None
        key = self.sizes, way
        if key not in self._training_sizes:
            rooms, largest = self._rooms(way, "train"), self.sizes.largest()
            self._training_sizes[key] = TrainingSizes(
                rooms,
                lambda label, shot: rooms[label] - shot,
                Sizes(way, largest.shot, largest.query_shot),
                family=lambda label: 0 if self.families is None else int(self.families[label]),
            )
        return self._training_sizes[key]

    def _rooms(self, way: int, on: Split) -> dict[int, int]:
        """Of each class of a split its examples, but no more than `way` classes of its family have."""
        classes = self.splits[on]
        families = torch.zeros_like(classes) if self.families is None else self.families[classes]
        rooms = self.counts[classes]
        for family in set(families.tolist()):
            own = families == family
            largest = rooms[own].sort(descending=True).values
            rooms[own] = rooms[own].clamp(max=int(largest[way - 1]) if len(largest) >= way else 0)
        return dict(zip(classes.tolist(), rooms.tolist(), strict=True))

    def _classes(self, classes: Tensor, way: int, generator: Generator) -> Tensor:
        if self.families is not None:  # as often as it has classes, if these are enough
            counts = torch.bincount(self.families[classes])
            weights = torch.where(counts >= way, counts, 0).double()
            family = torch.multinomial(weights, 1, generator=generator)
            classes = classes[self.families[classes] == family]
        return classes[torch.randperm(len(classes), generator=generator)[:way]]

    def _examples(
        self, classes: Tensor, shot: int, query_shot: int, generator: Generator
    ) -> tuple[Tensor, Tensor] | None:
        if self.order is not None:
            return self._in_order(classes, shot, query_shot, generator)
        support_side = None
        if self.groups is not None:  # each group is on one side in this whole task
            reachable = self.has_group[classes]
            support_side = self._support_side(classes, shot, generator)
            if not ((reachable & support_side).any(1) & (reachable & ~support_side).any(1)).all():
                return None
        support, query = [], []
        for label in classes.tolist():
            members = self.members[label]
            if support_side is None:
                picked = members[torch.randperm(len(members), generator=generator)[: shot + query_shot]]
                support.append(picked[:shot])
                query.append(picked[shot:])
                continue
            assert self.groups is not None
            on_support = support_side[self.groups[members]]
            for side, count, into in (
                (members[on_support], shot, support),
                (members[~on_support], query_shot, query),
            ):
                if self.repeats:
                    into.append(side[torch.randint(len(side), (count,), generator=generator)])
                elif len(side) < count:
                    return None
                else:
                    into.append(side[torch.randperm(len(side), generator=generator)[:count]])
        return torch.cat(support), torch.cat(query)

    def _support_side(self, classes: Tensor, shot: int, generator: Generator) -> Tensor:
        """Which groups are on the side of the support, `(groups,)`: a random half where examples do not run out.

        Else random ones until each class has its shot, so that as many as can be are left for the query.
        """
        assert self.groups is not None
        count = self.has_group.shape[1]
        if self.repeats:
            return torch.rand(count, generator=generator) < 0.5
        groups = [self.groups[self.members[label]] for label in classes.tolist()]
        held = torch.stack([torch.bincount(own, minlength=count) for own in groups])  # (classes, groups)
        side, lacking = torch.zeros(count, dtype=torch.bool), torch.full((len(classes),), shot)
        reached = torch.unique(torch.cat(groups))
        for group in reached[torch.randperm(len(reached), generator=generator)].tolist():
            if (held[lacking > 0, group] > 0).any():
                side[group] = True
                lacking -= held[:, group]
                if not (lacking > 0).any():
                    break
        return side

    def _in_order(
        self, classes: Tensor, shot: int, query_shot: int, generator: Generator
    ) -> tuple[Tensor, Tensor] | None:
        """The last support examples of each class before a random moment, and any of the later ones as query."""
        assert self.order is not None
        members = [self.members[label] for label in classes.tolist()]
        times = [self.order[own] for own in members]
        first = max(int(own[shot - 1]) for own in times)
        end = min(int(own[-query_shot]) for own in times)
        if first >= end:
            return None
        moment = int(torch.randint(first, end, (), generator=generator))
        support, query = [], []
        for own, at in zip(members, times, strict=True):
            before = int((at <= moment).sum())
            later = own[before:]
            support.append(own[before - shot : before])
            query.append(later[torch.randperm(len(later), generator=generator)[:query_shot]])
        return torch.cat(support), torch.cat(query)

    def _task(self, draw: Draw, support: Tensor, query: Tensor) -> Task:
        numbers = torch.arange(len(draw.classes))
        return Task(
            Examples(support, numbers.repeat_interleave(len(draw.support) // len(numbers))),
            Examples(query, numbers.repeat_interleave(len(draw.query) // len(numbers))),
        )

    def eligible(self, sizes: Sizes) -> Tensor:
        """The classes of the present split with enough examples for these sizes."""
        classes = self.splits[self.split_name]
        return classes if self.repeats else classes[self.counts[classes] >= sizes.shot + sizes.query_shot]

    def check(self) -> None:
        """Raise `DataError` if no task of the largest sizes can be drawn; make a note of classes left out."""
        largest = self.sizes.largest()
        way, shot, query_shot = largest.way, largest.shot, largest.query_shot
        classes, eligible = self.splits[self.split_name], self.eligible(largest)
        if len(eligible) < way:
            counts = sorted((int(self.counts[c]), self.names[c]) for c in classes.tolist())
            fewest = ", ".join(f"{name} ({count})" for count, name in counts[:3])
            raise DataError(
                f"A {way}-way task with {shot} support and {query_shot} query examples per class needs {way} classes "
                f"of {shot + query_shot} or more, but the {self.split_name} split has {len(eligible)} such classes out "
                f"of {len(classes)} (fewest examples: {fewest}).",
                code="too-few-examples",
                hint="Lower {way}, {shot} or {query_shot}, or add examples.",
            )
        if self.families is not None and (most := int(torch.bincount(self.families[eligible]).max())) < way:
            raise DataError(
                f"The classes of a task are of one {self.family}, but no {self.family} of the {self.split_name} split "
                f"has {way} classes with {shot + query_shot} examples (the largest has {most}).",
                code="too-few-examples",
                hint="Lower {way}, {shot} or {query_shot}.",
            )
        left_out = len(classes) - len(self.drawable())
        if left_out:
            if self.split_name == "train":
                shot, query_shot, way = 1, 1, self.sizes.smallest().way
            alone = f", or no {way} classes of their {self.family} have" if self.families is not None else ""
            note(
                "left-out",
                f"{left_out} of {len(classes)} classes of the {self.split_name} split have fewer than "
                f"{shot + query_shot} examples ({shot} to learn from, {query_shot} to be scored on){alone}, and are "
                "left out.",
            )

    def drawable(self) -> Tensor:
        """The classes that tasks are drawn from, of the largest sizes but where training tasks may be small."""
        training = self.training_sizes(self.sizes.smallest().way)
        if training is not None:
            return torch.tensor(training.units, dtype=torch.long)
        sizes = self.sizes.largest()
        eligible = self.eligible(sizes)
        if self.families is None:
            return eligible
        families = self.families[eligible]
        return eligible[torch.bincount(families)[families] >= sizes.way]

    def pool(self) -> Pool | None:
        """The examples of the present split, with class ids counted from 0 within the split."""
        classes = self.splits[self.split_name]
        ids = torch.cat([self.members[c] for c in classes.tolist()])

        def draw(generator: Generator, count: int) -> Examples:
            chosen = ids[torch.randint(len(ids), (count,), generator=generator)]
            targets = torch.searchsorted(classes, self.labels[chosen])
            return Examples(self.prepare(self.inputs[chosen], generator), targets)

        return Pool(len(classes), draw)

    def manifest(self, index: int) -> Manifest:
        """Classes and example ids of task `index`."""
        draw = self.draw(self.generator_of(index), self.sizes_of(index))
        return Manifest(*(tuple(part.tolist()) for part in draw))

    def split_manifest(self) -> dict[str, list[str]]:
        """The class names of each split."""
        return {on: [self.names[c] for c in self.splits[on].tolist()] for on in SPLITS}
