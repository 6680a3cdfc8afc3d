"""Near-duplicates: copies with noise are found and named, and what is merely alike is not."""

import pytest
import torch

from evaluation.toys import Clusters, Slopes
from handful.doctor.near_duplicates import PER_SPLIT, near_duplicates
from handful.streams import seeded
from handful.tasks.distribution import SPLITS, TaskDistribution
from handful.types import Examples, Task, TaskSpec


def found(distribution, tasks=30):
    return near_duplicates({on: distribution.split(on) for on in SPLITS}, tasks)


def with_copies(pairs, *, change):
    inputs = Clusters().inputs.clone()
    for one, other in pairs:
        inputs[other] = change(inputs[one])
    return Clusters(inputs=inputs)


CHANGES = {
    "noise": lambda example: example + 0.01 * torch.randn(len(example), generator=torch.Generator().manual_seed(0)),
    "rounding": lambda example: (20 * example).round() / 20,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_copy_in_the_same_class_is_found_and_named(change):
    tasks = with_copies([(12 * number, 12 * number + 1) for number in range(60)], change=change)
    finding = found(tasks)
    assert finding.status == "warning"
    assert "in support and query of a task (example " in finding.message
    first, second = (int(part.split()[1]) for part in finding.message.split("(")[2].split(";")[0].split(" and "))
    assert {first % 12, second % 12} == {0, 1}
    assert first // 12 == second // 12


def test_a_copy_in_another_split_is_found():
    """The first numbers, which say the class, are left as they are in the other class."""
    tasks = with_copies([(12 * number, 12 * (number + 30)) for number in range(30)], change=CHANGES["noise"])
    finding = found(tasks)
    assert finding.status == "warning"
    assert "in different splits" in finding.message


def test_examples_of_one_class_are_not_near():
    assert found(Clusters()).status == "ok"


def test_equal_examples_are_left_to_other_checks():
    inputs = Clusters().inputs.clone()
    inputs[1::2] = inputs[::2]
    assert found(Clusters(inputs=inputs)).status == "ok"


def test_rows_of_few_numbers_are_not_looked_at():
    assert found(Slopes()).status == "skipped"


class Long(TaskDistribution):
    """Tasks of more examples than are compared. copied: what the first query examples of a task are copies of, if
    anything: of its first support examples, or of those of the same task of another split."""

    def __init__(self, copied=None):
        super().__init__()
        self.copied = copied

    def spec_for(self, sizes):
        return TaskSpec("regression", (40,), 1, "shared")

    def task(self, index):
        rows = torch.randn(600 + PER_SPLIT, 40, generator=seeded(SPLITS.index(self.split_name), index))
        if self.copied:
            copies = rows if self.copied == "support" else torch.randn(600, 40, generator=seeded(7, index))
            rows[600:1200] = copies[:600] + 0.01 * rows[600:1200]
        targets = torch.zeros(len(rows), 1)
        return Task(Examples(rows[:600], targets[:600]), Examples(rows[600:], targets[600:]))

    def sample(self, generator, sizes):
        raise AssertionError


@pytest.mark.parametrize("tasks", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_of_long_tasks_a_part_of_both_sides_is_compared(tasks):
    """The text names what was looked at: 1,000 examples of each of three splits."""
    finding = found(Long(), tasks)
    assert finding.status == "ok"
    assert f"3,000 examples of {tasks} tasks each of train, val, test" in finding.message
    assert "in support and query of a task" in found(Long("support"), tasks).message
    assert "in different splits" in found(Long("split"), tasks).message


def test_of_many_tasks_the_first_are_compared_and_of_one_split_there_is_no_other():
    finding = near_duplicates({"train": Clusters()}, 2000)
    assert "1,000 examples of 500 tasks each of train" in finding.message
    assert "splits" not in finding.message


def rows(numbers: int, categories: int, kinds: int = 4) -> torch.Tensor:
    """Examples of so many numbers and one-hot categories, as many as the toys have."""
    generator, count = seeded(3), len(Clusters().inputs)
    drawn = torch.randint(kinds, (count, categories), generator=generator)
    hot = torch.nn.functional.one_hot(drawn, kinds).flatten(1).float()
    return torch.cat([torch.randn(count, numbers, generator=generator).round(decimals=1), hot], 1)


def test_of_rows_of_a_few_numbers_and_one_hot_categories_nobody_is_alarmed():
    """They are different people, and near one another by chance."""
    finding = found(Clusters(inputs=rows(2, 5)))
    assert finding.status == "skipped"
    assert "Examples of 22 numbers (20 of them take at most two values) are near" in finding.message


def test_many_numbers_of_two_values_tell_enough():
    """As the pixels of a drawing do."""
    inputs = (torch.rand(720, 400, generator=seeded(4)) < 0.2).float()
    assert found(Clusters(inputs=inputs)).status == "ok"
    inputs[1::2] = inputs[::2]
    inputs[1::2, 0] = 1 - inputs[1::2, 0]
    assert found(Clusters(inputs=inputs)).status == "warning"
