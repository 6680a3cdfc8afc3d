"""Devices: tasks are drawn on the CPU, and what works with them names no default device.

No GPU is needed for that: with the default device "meta" a tensor that was made without naming one cannot be mixed with
those of a CPU.
"""

import pytest
import torch
from torch.utils import _pytree as pytree

from evaluation.toys import Clusters, KnownSlopes, OnDevice
from handful.engine.devices import available, device_named
from handful.engine.plan import Plan
from handful.errors import UserError
from handful.evaluation.ladder import Ladder
from handful.evaluation.scoring import evaluate, predict_tasks
from handful.registry import LEARNERS
from handful.tasks.distribution import Pool, TaskDistribution
from handful.training.loop import Training, meta_train
from handful.training.settings import Settings
from handful.types import Examples, stack


class Drawn(TaskDistribution):
    """The first tasks of another distribution, drawn before; and examples of them to pre-train on."""

    def __init__(self, source, count):
        super().__init__(seed=0)
        self.source, self.sizes, self.target_scale = source, source.sizes, source.target_scale
        self.tasks = [source.task(index) for index in range(count)]
        self.oracles = [source.oracle(index) for index in range(count)]
        self.manifests = [source.manifest(index) for index in range(count)]

    def spec_for(self, sizes):
        return self.source.spec_for(sizes)

    def sample(self, generator, sizes):
        raise NotImplementedError

    def split(self, name):
        return self

    def task(self, index):
        return self.tasks[index % len(self.tasks)]

    def batch(self, indices):
        return stack([self.task(index) for index in indices])

    def manifest(self, index):
        return self.manifests[index % len(self.manifests)]

    def oracle(self, index):
        return self.oracles[index % len(self.oracles)]

    def pool(self):
        inputs, targets = (torch.cat(parts) for parts in zip(*(task.query for task in self.tasks), strict=True))

        def draw(generator, count):
            rows = torch.randint(len(inputs), (count,), generator=generator, device="cpu")
            return Examples(inputs[rows], targets[rows])

        return Pool(self.source.spec.outputs, draw)


def learner_for(tasks, key, **options):
    return LEARNERS[key].build(tasks.spec, backbone="mlp", backbone_options={"hidden": (4,)}, **options)


@pytest.fixture
def _default_stays(monkeypatch):
    """`own_settings` would set the CPU as the default, which hides what names no device."""
    monkeypatch.setattr("torch.get_default_device", lambda: torch.device("cpu"))


@pytest.mark.usefixtures("_default_stays")
@pytest.mark.parametrize(("source", "key", "pretrained"), [(Clusters, "protonet", 128), (KnownSlopes, "anp", 0)])
def test_training_and_evaluation_name_their_devices(source, key, pretrained):
    tasks = Drawn(source(), 4)

    def found():
        learner = learner_for(tasks, key)
        sizes = {"meta_batch_size": 2, "validation_tasks": 2, "pretrain_examples": pretrained}
        trained = meta_train(learner, tasks, steps=2, validate_every=1, plan="loop", **sizes)
        scored = evaluate(learner, tasks, tasks=4)
        measured = scored.score, scored.over_classes, scored.error_gap, scored.likelihood_gap, *scored.coverage.values()
        losses = [row["loss"] for row in trained.history]
        return losses, trained.best_score, scored.scores.tolist(), scored.confidences.tolist(), measured

    expected = found()
    with torch.device("meta"):  # as some operations give any numbers then, and not an error, those are compared
        assert found() == expected


@pytest.mark.usefixtures("_default_stays")
def test_the_ladder_names_its_devices(monkeypatch):
    monkeypatch.setattr("handful.evaluation.ladder.CHOOSING_TASKS", 2)
    tasks = Drawn(Clusters(), 4)

    def scores():
        ladder = Ladder(learner_for(tasks, "protonet"), tasks, examples=128, minutes=0)
        return [(row.paired, row.evaluation.score) for row in ladder.run(tasks, tasks, tasks=4).rows]

    expected = scores()
    with torch.device("meta"):
        assert scores() == expected


def test_tasks_go_to_the_device_of_the_learner():
    learner = OnDevice.build(Clusters().spec, backbone="raw").to("meta")
    tasks = Clusters().batch(range(2))
    with pytest.raises(NotImplementedError, match="meta"):  # the predictions have no numbers to bring back
        predict_tasks(learner, tasks, Clusters().spec, Plan("loop"))


def test_a_meta_batch_and_its_noise_go_to_the_device_of_the_learner():
    tasks = Clusters()
    learner = learner_for(tasks, "in-context").to("meta")
    training = Training(learner, tasks, tasks, Settings(meta_batch_size=2))
    batch, _, noise = training.draw(range(2))
    assert noise
    assert all(leaf.is_meta for leaf in pytree.tree_leaves((batch, noise)))


@pytest.mark.parametrize("name", ["cuda", "mps", "tpu", "auto", "cpu"])
def test_a_device_is_one_of_those_that_there_are(name, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    if name in ("auto", "cpu"):
        assert Settings(device=name).device == "cpu"
        return
    with pytest.raises(UserError, match=f"device '{name}' is not available.*cpu"):
        Settings(device=name)


def test_auto_is_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert device_named("auto") == torch.device("cuda")


@pytest.mark.skipif(available() == ["cpu"], reason="needs a GPU, and there is none")
@pytest.mark.parametrize("key", ["protonet", "maml", "anp"])
def test_training_on_a_gpu_goes_as_on_a_cpu(key):
    tasks = KnownSlopes() if key == "anp" else Clusters()
    losses, scores = [], []
    for device in ("cpu", "auto"):
        learner = learner_for(tasks, key)
        trained = meta_train(learner, tasks, steps=3, meta_batch_size=2, validation_tasks=4, device=device)
        assert learner.device.type == device_named(device).type
        losses.append([row["loss"] for row in trained.history])
        scores.append(evaluate(learner, tasks.split("test"), tasks=4).score.mean)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert scores[1] == pytest.approx(scores[0], rel=1e-2, abs=0.05)
