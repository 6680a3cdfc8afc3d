"""Small task sources and learners, sound and with planted faults. None of them is registered."""

import torch
from torch import Generator, Tensor, nn

from handful.learners.learner import Learner
from handful.streams import seeded
from handful.tasks.distribution import SPLITS, Manifest, SizeRanges, Sizes, TaskDistribution
from handful.tasks.labeled_pool import LabeledPool
from handful.types import Categorical, Examples, Gaussian, Point, Task, TaskSpec

WIDTH, CLASSES, EACH = 40, 60, 12
LIMIT = 1.0
SPLIT = {"train": list(range(30)), "val": list(range(30, 45)), "test": list(range(45, 60))}


class Clusters(LabeledPool):
    """A pool of vectors around a mean for each class; the first numbers say loudly which training class it is."""

    def __init__(self, *, splits=None, inputs: Tensor | None = None, seed: int = 0) -> None:
        generator = seeded(5)
        labels = torch.arange(CLASSES).repeat_interleave(EACH)
        means = 0.5 * torch.randn(CLASSES, WIDTH, generator=generator)
        drawn = means[labels] + torch.randn(len(labels), WIDTH, generator=generator)
        drawn[:, :30] += 20 * nn.functional.one_hot(labels, CLASSES)[:, :30]
        names = [f"class{number}" for number in range(CLASSES)]
        super().__init__(drawn if inputs is None else inputs, labels, names, splits=splits or SPLIT, seed=seed)
        self.sizes = SizeRanges(way=5, shot=2, query_shot=3)


class Leaking(Clusters):
    """The first query example of each task is its first support example."""

    def draw(self, generator: Generator, sizes: Sizes):
        draw = super().draw(generator, sizes)
        draw.query[0] = draw.support[0]
        return draw


class FixedNumbers(Clusters):
    """Class numbers are those of the data: they say something, although they are declared to be drawn anew."""

    def draw(self, generator: Generator, sizes: Sizes):
        draw = super().draw(generator, sizes)
        order = draw.classes.argsort()
        examples = (part.view(len(order), -1)[order].flatten() for part in (draw.support, draw.query))
        return type(draw)(draw.classes[order], *examples)


class Slopes(TaskDistribution):
    """Regression: y = slope x with a slope of each task, or with one for all."""

    def __init__(self, *, alike: bool = False, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.alike = alike
        self.sizes = SizeRanges(None, 5, 6)
        self.target_scale = torch.tensor([10.0]).double()

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        return TaskSpec("regression", (1,), 1, "shared")

    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        slope = torch.tensor(1.0) if self.alike else torch.randn((), generator=generator)
        inputs = torch.randn(11, 1, generator=generator)
        targets = slope * inputs + 0.1 * torch.randn(11, 1, generator=generator)
        return Task(Examples(inputs[:5], targets[:5]), Examples(inputs[5:], targets[5:]))


class KnownSlopes(Slopes):
    """Tells the best prediction of one who does not know the slope, but how it and the noise are drawn."""

    def oracle(self, index: int) -> Gaussian:
        (inputs, targets), query = self.task(index)
        precision = 1 + inputs.square().sum() / 0.01
        mean = query.inputs * (inputs * targets).sum() / 0.01 / precision
        return Gaussian(mean, query.inputs.square() / precision + 0.01)


class Collection(Slopes):
    """As a user's collection of tasks, of which each has a slope of its own and several draws."""

    def __init__(self, *, tasks: dict[str, int]) -> None:
        super().__init__()
        self.tasks = tasks

    @property
    def units(self) -> int:
        return self.tasks[self.split_name]

    def unit(self, index: int) -> int:
        return index % self.tasks[self.split_name]

    def task(self, index: int) -> Task:
        slope = (-1.0) ** self.unit(index)
        return Task(*(Examples(inputs, slope * inputs) for inputs, _ in super().task(index)))

    def manifest(self, index: int) -> Manifest:
        first = 10**6 * SPLITS.index(self.split_name) + 11 * index
        return Manifest((), tuple(range(first, first + 5)), tuple(range(first + 5, first + 11)))

    def split_manifest(self) -> dict[str, list[str]]:
        return {on: [f"{on}{number}" for number in range(count)] for on, count in self.tasks.items()}


class Toy(Learner):
    """Nearest centroid, in plain words."""

    def __init__(self, spec: TaskSpec, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def adapt(self, support: Examples, spec: TaskSpec):
        members = nn.functional.one_hot(support.targets, spec.outputs).to(support.inputs)
        return {"means": members.T @ support.inputs / members.sum(0).unsqueeze(-1)}

    def predict(self, state, inputs: Tensor):
        return Categorical(-torch.cdist(inputs, state["means"]))


class Ignoring(Toy):
    """Has memorized that low numbers of the first ones mean low classes, and does not look at the support."""

    def adapt(self, support: Examples, spec: TaskSpec):
        return {"way": torch.zeros(spec.outputs)}

    def predict(self, state, inputs: Tensor):
        loudest = inputs[:, :30].argmax(-1, keepdim=True) / 30 * len(state["way"])
        return Categorical(-(loudest - torch.arange(len(state["way"])) - 0.5).square())


class Whispering(Toy):
    """Takes the mean of all queries off each."""

    def predict(self, state, inputs: Tensor):
        return super().predict(state, inputs - inputs.mean(0))


class Line(Toy):
    """Least squares through zero."""

    def adapt(self, support: Examples, spec: TaskSpec):
        return {"slope": (support.inputs * support.targets).sum(0) / support.inputs.square().sum(0)}

    def predict(self, state, inputs: Tensor):
        return Point(inputs * state["slope"])


class OneForAll(Line):
    """Has learned one line for all tasks."""

    def adapt(self, support: Examples, spec: TaskSpec):
        return {"slope": torch.ones(1)}


class UnsureLine(Line):
    """Least squares through zero, that says its deviation is 0.2."""

    def predict(self, state, inputs: Tensor):
        mean = super().predict(state, inputs).mean
        return Gaussian(mean, torch.full_like(mean, 0.04))


class OnDevice(Toy):
    """Asserts that what it is given is on its own device."""

    def adapt(self, support, spec):
        assert {part.device.type for part in support} == {self.device.type}
        return super().adapt(support, spec)

    def predict(self, state, inputs):
        assert inputs.device.type == self.device.type
        return super().predict(state, inputs)


class Failing(Toy):
    """Has no finite prediction in tasks whose first support example ends with a number above the limit."""

    def adapt(self, support: Examples, spec: TaskSpec):
        return fails(super().adapt(support, spec), support)


class FailingLine(UnsureLine):
    """The same for regression."""

    def adapt(self, support: Examples, spec: TaskSpec):
        return fails(super().adapt(support, spec), support)


def fails(state, support: Examples):
    """The state, or NaN in its place."""
    bad = support.inputs[0, -1] > LIMIT
    return {name: torch.where(bad, torch.nan, value) for name, value in state.items()}


for toy in (Toy, OnDevice, Ignoring, Whispering, Line, OneForAll, UnsureLine, Failing, FailingLine):
    toy_name = toy.__name__.lower()
    type.__setattr__(toy, "key", toy_name)  # after the class is made, so that the registry does not know it


class Large(nn.Module):
    """So large that one task takes all cores; it counts the rows that pass."""

    one_by_one = True

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, 6)
        self.rows = []
        self.note = self.rows.append  # also of copies

    def forward(self, inputs):
        self.note(len(inputs))
        return self.linear(inputs).tanh()
