"""Diversity: 0 for one task over and over, 1 for tasks with nothing in common, and something between between."""

import pytest
import torch

from evaluation.toys import Clusters, Slopes
from handful.doctor.diversity import coefficient, diversity
from handful.types import Examples, Task


class Mixed(Slopes):
    """Answers are a share of one line for all, and of a direction of the task's own, in 5 inputs."""

    def __init__(self, own, shot=200):
        super().__init__()
        self.own, self.rows = own, shot

    def sample(self, generator, sizes):
        one, other = torch.zeros(5, 1), torch.randn(5, 1, generator=generator)
        one[0] = 1
        other = other / other.norm()
        inputs = torch.randn(self.rows, 5, generator=generator)
        targets = inputs @ ((1 - self.own) ** 0.5 * one + self.own**0.5 * other)
        half = self.rows // 2
        return Task(Examples(inputs[:half], targets[:half]), Examples(inputs[half:], targets[half:]))

    def spec_for(self, sizes):
        return type(super().spec_for(sizes))("regression", (5,), 1, "shared")


@pytest.mark.parametrize("own", [0.0, 0.3, 1.0])
def test_it_is_the_share_of_a_task_that_is_its_own(own):
    """The cosine of two heads is 1 - own, but for what two random directions have in common."""
    found = coefficient(Mixed(own), 30)
    assert found.mean == pytest.approx(own, abs=0.12)
    assert found.low - 0.02 <= own <= found.high + 0.02


def test_noise_in_a_task_does_not_pass_for_diversity():
    class Noisy(Mixed):
        def sample(self, generator, sizes):
            task = super().sample(generator, sizes)
            return Task(*(Examples(x, y + torch.randn(y.shape, generator=generator)) for x, y in task))

    assert coefficient(Noisy(0.0, shot=40), 30).mean < 0.15


def test_tasks_that_are_alike_are_a_warning():
    finding = diversity(Slopes(alike=True), 30)
    assert finding.status == "warning"
    assert "Transfer learning may do as well" in finding.message


@pytest.mark.parametrize("tasks", [Clusters(), Slopes()])
def test_tasks_that_differ_are_not(tasks):
    assert diversity(tasks, 20).status == "ok"


def test_tasks_of_noise_tell_nothing():
    class Nothing(Slopes):
        def sample(self, generator, sizes):
            return Task(
                *(Examples(x, torch.randn(y.shape, generator=generator)) for x, y in super().sample(generator, sizes))
            )

    assert diversity(Nothing(), 30).status == "skipped"
