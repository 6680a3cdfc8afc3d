"""What a budget of seconds holds of pre-training, by clocks that go as they are told."""

from types import SimpleNamespace

import pytest
import torch

from handful.learners.pretrained_blocks import PretrainedBlocks
from handful.learners.pretraining import BATCH, Pretraining
from handful.storage import digest_of
from handful.tasks.distribution import Pool
from handful.training import pretraining_budget
from handful.training.pretraining_budget import choose_size, examples_within, quicker_precision
from handful.types import Examples, TaskSpec

SPEC = TaskSpec("classification", (4,), 3)


def draw(generator, count):
    return Examples(torch.randn(count, 4, generator=generator), torch.randint(7, (count,), generator=generator))


POOL = Pool(7, draw)


def built():
    return PretrainedBlocks.build(SPEC, backbone="mlp", backbone_options={"hidden": (3,)})


@pytest.fixture
def ticking(monkeypatch):
    """Let the clock, which is read once a step, go on by so many seconds each time; returns what was read."""

    def set_to(seconds):
        reads = []

        def read():
            reads.append(len(reads) * seconds)
            return reads[-1]

        monkeypatch.setattr(pretraining_budget, "time", SimpleNamespace(perf_counter=read))
        return reads

    return set_to


def test_as_many_batches_fit_as_the_time_of_a_step_and_of_the_last_passes_says(ticking):
    learner = built()
    before = digest_of(learner.state_dict())
    # 100 steps of half a second, less six that were taken to time them, and ten forward passes of a third of a step.
    ticking(0.5)
    assert examples_within(learner, POOL, 50.0) == 90 * BATCH
    assert examples_within(learner, POOL, 0.1) == BATCH
    assert digest_of(learner.state_dict()) == before
    assert not learner.training


def test_a_longer_budget_is_timed_for_longer(ticking):
    reads = ticking(0.5)
    examples_within(built(), POOL, 500.0)
    assert reads[-2] - reads[2] == 10.0


@pytest.mark.parametrize(("half", "chosen"), [(0.5, "bf16"), (0.95, "fp32"), (4.0, "fp32")])
def test_a_precision_is_taken_for_its_speed_on_this_processor(half, chosen, monkeypatch):
    clock, advance = {"now": 0.0}, Pretraining.advance

    def advanced(pretraining):
        clock["now"] += {"fp32": 1.0, "bf16": half}[pretraining.precision]
        advance(pretraining)

    monkeypatch.setattr(pretraining_budget, "time", SimpleNamespace(perf_counter=lambda: clock["now"]))
    monkeypatch.setattr(Pretraining, "advance", advanced)
    assert quicker_precision(built(), POOL, 1000.0) == chosen
    assert clock["now"] <= 18.0, "choosing costs little, and a slow step is not repeated"
    clock["now"] = 0.0
    learner = built()
    assert examples_within(learner, POOL, 1000.0, precision="bf16") == pytest.approx(1000 / half * BATCH, rel=0.05)


@pytest.mark.slow
def test_a_size_that_is_far_too_slow_is_timed_by_one_step_alone(ticking):
    reads = ticking(0.5)
    assert choose_size(100 * 0.5, (1, 40, 40)).size == 32
    all_steps = len(reads)
    reads.clear()
    assert choose_size(0.5, (1, 40, 40)).size == 32
    assert len(reads) == all_steps - 2 * 2


@pytest.mark.parametrize(
    ("seconds", "shape", "size", "backbone", "batches"),
    [
        (600, (3, 200, 100), 84, "resnet3", 600),
        (120, (3, 84, 84), 64, "resnet3", 300),
        (119, (3, 84, 84), 32, "conv4", 1190),
        (1, (3, 84, 84), 32, "conv4", 10),
        (120, (3, 64, 64), 64, "resnet3", 300),
        (120, (1, 28, 28), 28, "conv4", 1200),
        (60, (3, 50, 60), 50, "resnet3", 600),
    ],
)
def test_the_largest_images_are_taken_of_which_the_budget_holds_enough(
    monkeypatch, seconds, shape, size, backbone, batches
):
    times = {84: 1.0, 64: 0.4, 50: 0.1, 32: 0.1, 28: 0.1}
    monkeypatch.setattr(
        pretraining_budget, "_seconds_per_step", lambda learner, *_: times[learner.recipe["spec"].input_shape[1]]
    )
    choice = choose_size(seconds, shape)
    assert (choice.size, choice.backbone, choice.batches) == (size, backbone, batches)
    assert str(choice) == f"images of {size} pixels and {backbone}, {batches:,} batches of 128"


def test_sizes_are_timed_on_images_of_their_own(ticking):
    ticking(0.25)
    choice = choose_size(30.0, (1, 16, 16))
    assert (choice.size, choice.backbone, choice.batches) == (16, "conv4", 120)
