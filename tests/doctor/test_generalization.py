"""New tasks: adapting that does nothing, memory of training tasks, and other sizes are found; sound ones are not."""

import pytest
import torch

from evaluation.toys import Clusters, Line, OneForAll, Slopes, Toy
from handful.doctor.diagnosis import diagnose
from handful.doctor.generalization import adaptation, gap_by_tasks, mismatch
from handful.doctor.learner_checks import SupportExchange
from handful.evaluation.intervals import difference
from handful.evaluation.scoring import evaluate
from handful.streams import seeded
from handful.tasks.distribution import SizeRanges
from handful.types import Examples, Task, TaskSpec


def build(cls, distribution):
    return cls.build(distribution.spec, backbone="raw")


def found(distribution, learner, **more):
    return {finding.check: finding for finding in diagnose(distribution, learner, tasks=30, **more)}


class Named(Slopes):
    """Slopes of 10 training tasks; the second input of a training task is its slope, of a new one a lie."""

    def spec_for(self, sizes):
        return TaskSpec("regression", (2,), 1, "shared")

    def unit(self, index):
        return int(torch.randint(10, (), generator=self.generator_of(index))) if self.split_name == "train" else index

    def sample(self, generator, sizes):
        number = int(torch.randint(10, (), generator=generator))
        facts = seeded(number) if self.split_name == "train" else generator
        slope, lie = torch.randn(2, generator=facts)
        x = torch.randn(11, 1, generator=generator)
        code = torch.full_like(x, float(slope if self.split_name == "train" else lie))
        rows = torch.cat([x, code], 1), slope * x + 0.1 * torch.randn(11, 1, generator=generator)
        return Task(Examples(rows[0][:5], rows[1][:5]), Examples(rows[0][5:], rows[1][5:]))


class ByHeart(Line):
    """Reads the slope off the inputs."""

    def adapt(self, support, spec):
        return {"nothing": torch.zeros(1)}

    def predict(self, state, inputs):
        return super().predict({"slope": inputs[:, 1:]}, inputs[:, :1])


class BySupport(Line):
    """Learns the slope from the support."""

    def adapt(self, support, spec):
        return super().adapt(Examples(support.inputs[:, :1], support.targets), spec)

    def predict(self, state, inputs):
        return super().predict(state, inputs[:, :1])


for heart in (ByHeart, BySupport):
    type.__setattr__(heart, "key", heart.__name__.lower())


def test_training_tasks_known_by_heart_are_found():
    """TRAPS T14, where labels are shared: any support will do on training tasks, none on new ones."""
    tasks = Named()
    findings = found(tasks, build(ByHeart, tasks))
    assert findings["memorization"].status == "problem"
    assert "has memorized the training tasks" in findings["memorization"].message
    assert "{augment}" in findings["memorization"].hint
    assert findings["adaptation"].status == "warning"
    assert findings["gap"].status == "warning"


def test_one_who_learns_from_the_support_is_not_accused():
    tasks = Named()
    findings = found(tasks, build(BySupport, tasks))
    assert [findings[check].status for check in ("memorization", "adaptation", "gap")] == ["ok"] * 3


def test_adapting_that_does_nothing_is_told():
    findings = found(Slopes(), build(OneForAll, Slopes()))
    assert findings["adaptation"].status == "warning"
    assert "gains +0.00 of squared error" in findings["adaptation"].message
    assert found(Slopes(), build(Line, Slopes()))["adaptation"].status == "ok"


def test_the_gap_closes_as_training_tasks_grow():
    class Guessing(Line):
        """Knows the first slopes of the training tasks by heart, the more the fewer they are."""

        share = 0.0

        def adapt(self, support, spec):
            return {"slope": super().adapt(support, spec)["slope"] * (1 - self.share)}

    Guessing.key = "guessing"
    learners = {}
    for count, share in ((10, 0.5), (100, 0.1)):
        learner = build(Guessing, Slopes())
        learner.share = share
        learners[count] = (learner, Slopes(alike=True))
    small, large = gap_by_tasks(learners, Slopes().split("test"), tasks=200)
    assert (small.trained_on, large.trained_on) == (10, 100)
    assert small.gap.mean == pytest.approx(small.novel.mean - small.trained.mean)
    assert small.gap.tasks == 200


# Sizes of training


def sized(way, shot):
    return SizeRanges(way, shot, 3)


def test_a_harder_way_than_in_training_is_told_with_what_it_costs():
    tasks = Clusters().split("val").with_sizes(way=10, shot=1)
    finding = mismatch(tasks, build(Toy, tasks), sized(2, 5), 40)
    assert finding.status == "warning"
    assert "way 2 in training and 10 here, shot 5 in training and 1 here" in finding.message
    assert finding.hint == "They are set by {train_way} or {shot}."


def test_equal_sizes_and_easier_ones_are_no_mismatch():
    tasks = Clusters().split("val")
    learner = build(Toy, tasks)
    assert mismatch(tasks, learner, tasks.sizes, 10).message.startswith("Tasks have the way and shot")
    finding = mismatch(tasks.with_sizes(shot=5), learner, sized(5, 1), 40)
    assert finding.status == "ok"
    assert "show no loss" in finding.message


def test_sizes_that_cannot_be_drawn_are_skipped():
    tasks = Clusters().split("val")
    assert mismatch(tasks, build(Toy, tasks), sized(40, 2), 10).status == "skipped"


def test_the_doctor_compares_with_the_sizes_of_training_where_it_knows_them():
    tasks = Clusters()
    learner = build(Toy, tasks)
    assert "mismatch" not in found(tasks, learner)
    assert found(tasks, learner, trained=sized(2, 5))["mismatch"].status == "warning"


class Uneven(Slopes):
    """Ten tasks, half of which are too small for 6 examples; these are far easier."""

    def with_sizes(self, way=None, shot=None, query_shot=None):
        other = super().with_sizes(way, shot, query_shot)
        other.eligible = list(range(10)) if other.sizes.shot == 5 else list(range(5, 10))
        return other

    @property
    def units(self):
        return len(self.eligible)

    def unit(self, index):
        return index % self.units

    def task(self, index):
        task = super().task(index)
        noise = 10.0 * (self.eligible[self.unit(index)] >= 5) * torch.sign(task.query.inputs)
        return Task(task.support, Examples(task.query.inputs, task.query.targets + noise))


def test_sizes_that_leave_out_tasks_are_compared_as_different_tasks():
    """Tasks of one number are then not the same, and to pair them would take their luck for none."""
    tasks = Uneven().split("val").with_sizes(shot=6)
    learner = build(Line, tasks)
    finding = mismatch(tasks, learner, SizeRanges(None, 5, 6), 40)
    one, other = (evaluate(learner, tasks.with_sizes(shot=shot), tasks=40) for shot in (5, 6))
    expected = difference(-one.scores, -other.scores, one.units, other.units)
    seen = f"{expected.mean:,.0f} ± {round(expected.half_width, -2):,.0f}"
    assert f"does better by {seen} of squared error" in finding.message


def test_a_gain_that_few_tasks_leave_open_is_said_to_be_uncertain_and_not_nothing():
    own = -torch.tensor([100.0, 900.0, 400.0, 250.0], dtype=torch.float64)
    foreign = own - torch.tensor([330.0, -40.0, 20.0, 120.0], dtype=torch.float64)
    finding = adaptation(
        SupportExchange(own, foreign, torch.arange(4), False), build(Line, Slopes()), classification=False
    )
    assert finding.status == "warning"
    assert "Whether line gains from adapting to new tasks is undecided with 4 tasks" in finding.message
    assert "+108 ± 260 of squared error" in finding.message, "and no power of ten"
    nothing = adaptation(
        SupportExchange(own, own + 1, torch.arange(4), False), build(Line, Slopes()), classification=False
    )
    assert "shows no gain from adapting" in nothing.message
