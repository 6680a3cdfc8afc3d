"""Heads on a pre-trained network: switched on where validation classes say so, with honest probabilities."""

from types import SimpleNamespace

import pytest
import torch
from torch import Generator

from handful.evaluation.scoring import evaluate
from handful.learners.pretrained_blocks import PretrainedBlocks
from handful.learners.transfer import FineTuneAll
from handful.metrics import METRICS
from handful.storage import digest_of
from handful.tasks.labeled_pool import LabeledPool
from handful.training import heads
from handful.training.heads import (
    FEWEST_TASKS,
    RATES,
    FineTuning,
    _sharpened,
    _Validation,
    decided,
    surely_better,
    tasks_to_decide,
    tasks_to_fine_tune,
)

D, CLASSES, EACH = 8, 30, 20


def pool(*, noise, signal=1.0, validating=12, each=EACH):
    """Vectors of classes, under noise along a few directions that all classes share."""
    generator = Generator().manual_seed(0)
    centers = signal * torch.randn(CLASSES, D, generator=generator)
    labels = torch.arange(CLASSES).repeat_interleave(each)
    loud = noise * torch.randn(CLASSES * each, 2, generator=generator) @ torch.randn(2, D, generator=generator)
    inputs = centers[labels] + loud + 0.3 * torch.randn(CLASSES * each, D, generator=generator)
    numbers = {
        "train": range(validating + 3, CLASSES),
        "val": range(validating),
        "test": range(validating, validating + 3),
    }
    tasks = LabeledPool(inputs, labels, [str(one) for one in range(CLASSES)], splits=numbers)
    return tasks.split("val").with_sizes(3, min(5, each // 2), min(5, each // 2))


def built(tasks, backbone="raw", **options):
    return PretrainedBlocks.build(tasks.spec, backbone=backbone, **options)


def test_ridge_is_switched_on_where_it_surely_tells_classes_apart_better():
    tasks = pool(noise=3.0)
    found = decided(built(tasks), tasks, tasks=60)
    (trial,) = found.trials  # vectors have no views
    assert trial.name == "ridge"
    assert trial.kept
    assert trial.gain.low > 0
    assert found.learner.recipe["options"]["ridge"] is True
    assert str(trial).startswith("ridge: kept, gain +")
    assert evaluate(found.learner, tasks, tasks=20).score.mean > evaluate(built(tasks), tasks, tasks=20).score.mean


def test_nothing_is_switched_on_where_there_is_nothing_to_gain():
    tasks = pool(noise=0.0, signal=3.0)
    found = decided(built(tasks), tasks, tasks=50)
    assert [trial.kept for trial in found.trials] == [False]
    assert found.learner.recipe["options"]["ridge"] is False


def test_tasks_of_all_classes_say_nothing_of_others():
    tasks = pool(noise=3.0, validating=3)
    (trial,) = decided(built(tasks), tasks, tasks=30).trials
    assert (trial.gain, trial.kept) == (None, False)
    assert str(trial) == "ridge: left out, too few validation classes to measure its gain"


def test_a_gain_is_of_the_tasks_that_both_have():
    tasks = pool(noise=3.0)
    better, worse = (evaluate(built(tasks, ridge=ridge), tasks, tasks=40 + 20 * ridge) for ridge in (True, False))
    (_, gain), (_, loss) = surely_better(better, worse), surely_better(worse, better)
    assert gain.tasks == 40
    assert gain.mean == pytest.approx(-loss.mean)
    assert not surely_better(worse, better)[0]


@pytest.mark.parametrize(("channels", "views"), [(1, "affine views"), (3, "mirrored views")])
def test_views_are_tried_on_images_letters_never_mirrored(channels, views):
    generator = Generator().manual_seed(0)
    images = torch.rand(CLASSES * 4, channels, 16, 16, generator=generator)
    labels = torch.arange(CLASSES).repeat_interleave(4)
    numbers = {"train": range(10), "val": range(10, 20), "test": range(20, 30)}
    tasks = LabeledPool(images, labels, [str(one) for one in range(CLASSES)], splits=numbers).split("val")
    learner = built(tasks, "conv4", backbone_options={"widths": (2, 2, 2, 2)})
    before = digest_of(learner.state_dict())
    found = decided(learner, tasks.with_sizes(3, 1, 2), tasks=5)
    assert [trial.name for trial in found.trials] == ["ridge", views]
    assert digest_of(learner.state_dict()) == before


@pytest.mark.parametrize("ridge", [False, True])
def test_calibrated_probabilities_are_as_often_right_as_they_say(ridge):
    tasks = pool(noise=3.0)
    learner = built(tasks, ridge=ridge, temperature=50.0, ridge_temperature=50.0)
    found = [evaluate(one, tasks, tasks=100) for one in (learner, _Validation(tasks, 100).calibrated(learner))]
    gaps = [abs(float(one.confidences.mean() - one.correct.float().mean())) for one in found]
    assert gaps[1] < 0.04 < gaps[0]
    assert torch.equal(learner.temperatures, torch.tensor([50.0, 50.0]))
    if not ridge:
        assert torch.equal(found[0].scores, found[1].scores)


def test_temperatures_fitted_to_a_few_tasks_do_not_depend_on_the_start(monkeypatch):
    """Else one of them may run off to 0, and its head has no say."""
    tasks, found = pool(noise=1.0), []
    for start in (1.0, 100.0):
        monkeypatch.setattr(heads, "START", start)
        found.append(_Validation(tasks, FEWEST_TASKS).calibrated(built(tasks, ridge=True)).temperatures)
    torch.testing.assert_close(found[0], found[1], rtol=0.01, atol=0.01)


def test_each_example_is_seen_once_and_scores_stay():
    tasks = pool(noise=1.0)
    learner = built(tasks, "mlp", ridge=True)
    found, wanted = _Validation(tasks, 10).scored(learner), evaluate(learner, tasks, tasks=10)
    assert torch.equal(found.scores, wanted.scores)
    torch.testing.assert_close(found.confidences, wanted.confidences)


def test_heads_are_compared_on_as_many_tasks_as_the_time_allows(monkeypatch):
    few, many = pool(noise=1.0, each=10), pool(noise=1.0, each=1000)
    now = iter(range(100))
    monkeypatch.setattr(heads, "time", SimpleNamespace(perf_counter=lambda: next(now)))  # a second for what it times
    per_example, each = 1 / (3 * 10), 1 / FEWEST_TASKS

    def taken(tasks, rows):
        return min(rows, tasks * 3 * 10) * per_example + tasks * each * 2

    for tasks, rows in ((few, 120), (many, 12000)):
        found = tasks_to_decide(built(tasks), tasks, 1e9)
        assert found == (200, pytest.approx(taken(200, rows)))
        half = taken(200, rows) / 2
        count, seconds = tasks_to_decide(built(tasks), tasks, half)
        assert FEWEST_TASKS < count < 200
        assert seconds == pytest.approx(taken(count, rows))
        assert seconds <= half < taken(count + 1, rows)
        assert tasks_to_decide(built(tasks), tasks, 0.0)[0] == FEWEST_TASKS


def narrow(**options):
    """A network that has lost what its classes differ by, as fine-tuning on a task can bring back."""
    tasks = pool(noise=4.0)
    return tasks, built(tasks, "mlp", backbone_options={"hidden": (16,)}, **options)


def test_fine_tuning_is_kept_where_it_is_surely_better_with_the_time_that_it_was_allowed_by(monkeypatch):
    monkeypatch.setattr(heads, "RATES", (0.05, 1e-6))
    monkeypatch.setattr(heads, "_switches", lambda shape: [])
    tasks, learner = narrow()
    before = digest_of(learner.state_dict())
    found = decided(learner, tasks, fine_tuning=FineTuning(0.25, 30), tasks=40)
    (trial,) = found.trials
    assert trial.name == "fine-tuning at 0.05, 250 ms for a task"
    assert trial.kept
    assert trial.gain.tasks == 30
    assert isinstance(found.learner, FineTuneAll)
    assert found.learner.inner_lr == 0.05
    assert (len(found.evaluation.scores), found.evaluation.adapt_seconds) == (30, 0.25)
    assert torch.equal(found.evaluation.scores, evaluate(found.learner, tasks, tasks=30).scores)
    assert digest_of(learner.state_dict()) == before


def test_a_fine_tuned_network_is_as_often_right_as_it_says(monkeypatch):
    monkeypatch.setattr(heads, "RATES", (0.05,))
    tasks, learner = narrow()
    rung = decided(learner, tasks, fine_tuning=FineTuning(0.25, 30), tasks=40).learner
    plain = learner.twin(FineTuneAll, inner_lr=0.05)
    assert (float(plain.sharpness), float(rung.sharpness)) == (1.0, pytest.approx(0.4, abs=0.4))
    before, after = (evaluate(one, tasks, tasks=100) for one in (plain, rung))
    assert torch.equal(before.scores, after.scores)
    gaps = [abs(float(one.confidences.mean() - one.correct.float().mean())) for one in (before, after)]
    assert gaps[1] < 0.5 * gaps[0]


def test_without_an_error_the_sharpness_is_finite():
    tasks = pool(noise=0.0, signal=10.0)
    rung = _sharpened(built(tasks).twin(FineTuneAll), tasks)
    assert 0.5 < float(rung.sharpness) < 2


def test_fine_tuning_that_brings_nothing_is_left_out(monkeypatch):
    monkeypatch.setattr(heads, "RATES", (1e-8,))
    tasks, learner = narrow()
    found = decided(learner, tasks, fine_tuning=FineTuning(0.25, 10), tasks=20)
    assert [(trial.name, trial.kept) for trial in found.trials][1:] == [
        ("fine-tuning at 1e-08, 250 ms for a task", False)
    ]
    assert isinstance(found.learner, PretrainedBlocks)
    assert len(found.evaluation.scores) == 20


def test_what_is_decided_goes_by_the_metric():
    tasks, learner = narrow()
    found = decided(learner, tasks, tasks=10, metric=METRICS["log-likelihood"])
    assert found.evaluation.metric.name == "log-likelihood"
    wanted = evaluate(found.learner, tasks, tasks=10, metric="log-likelihood")
    torch.testing.assert_close(found.evaluation.scores, wanted.scores)


def test_fine_tuning_is_tried_in_as_many_tasks_as_the_time_allows(monkeypatch):
    tasks, learner = narrow()
    before = digest_of(learner.state_dict())
    taken = iter((9.0, 0.3, 0.1, 0.2))
    monkeypatch.setattr(heads, "cost", lambda rung, tasks: (next(taken), {}))
    monkeypatch.setattr(heads, "evaluate", lambda *arguments, **options: None)
    now = iter(range(100))
    monkeypatch.setattr(heads, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    found, seconds = tasks_to_fine_tune(learner, tasks, 60.0)
    each = len(RATES)
    assert found == FineTuning(0.2, int(60 / each) - FEWEST_TASKS), "the first try loads what is not there yet"
    assert seconds == pytest.approx(60.0)
    assert digest_of(learner.state_dict()) == before
