"""Networks that draw random numbers by themselves train to the same bits, or are refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from handful.errors import UserError
from handful.events import NoteEvent, ignore
from handful.notes import collecting
from handful.registry import LEARNERS
from handful.tasks.labeled_pool import LabeledPool
from handful.training.loop import Training, meta_train
from handful.training.run import Run
from handful.training.settings import Settings
from handful.training.workers import Workers

STEPS = {"steps": 4, "meta_batch_size": 4, "validation_tasks": 2, "validate_every": 2}


class Dropped(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.layer = nn.Linear(*shape, 4)

    def forward(self, x):
        return F.dropout(self.layer(x), 0.3, self.training)


class Recurrent(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.rnn = nn.GRU(*shape, 4, num_layers=2, dropout=0.3, batch_first=True)

    def forward(self, x):
        return self.rnn(x.unsqueeze(1))[0].squeeze(1)


class Deep(Dropped):
    def forward(self, x):
        x = self.layer(x)
        return x + (x.square() * x.new_empty(len(x), 1).bernoulli_(0.8) if self.training else x)


class AlwaysRandom(Dropped):
    def forward(self, x):
        return F.dropout(self.layer(x), 0.3)


class OwnGenerator(Dropped):
    def forward(self, x):
        x = self.layer(x)
        return x + torch.rand(4, generator=GENERATOR) if self.training else x


GENERATOR = torch.Generator()


@pytest.fixture(scope="module")
def tasks():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(12).repeat_interleave(6)
    splits = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}
    inputs = torch.randn(len(labels), 3, generator=generator) + labels.unsqueeze(1)
    return LabeledPool(inputs, labels, [f"c{i}" for i in range(12)], splits=splits).with_sizes(
        way=2, shot=2, query_shot=2
    )


def trained(tasks, key, network, on_event=ignore, **settings):
    learner = LEARNERS[key].build(tasks.spec, backbone=network)
    found = meta_train(learner, tasks, on_event=on_event, **STEPS | settings)
    return torch.cat([parameter.detach().flatten() for parameter in learner.parameters()]), found


@pytest.mark.parametrize(("key", "network"), [("protonet", Dropped), ("protonet", Recurrent), ("maml", Deep)])
def test_the_same_seed_gives_the_same_bits_and_the_global_generator_stays(tasks, key, network):
    weights, notes = [], []
    for elsewhere in (1, 2):
        torch.manual_seed(elsewhere)
        before = torch.get_rng_state()
        with collecting():  # that vmap refuses a recurrent network
            weights.append(trained(tasks, key, network, notes.append)[0])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*weights)
    assert sum("bernoulli_" in note.message for note in notes if isinstance(note, NoteEvent)) == 2


def test_each_task_of_each_step_draws_its_own(tasks):
    class Noting(Dropped):
        def forward(self, x):
            drawn = torch.rand(()) if self.training and torch.is_grad_enabled() else torch.zeros(())
            self.note(float(drawn))
            return self.layer(x) + drawn

    seen = []
    Noting.note = staticmethod(seen.append)
    trained(tasks, "protonet", Noting)
    drawn = [number for number in seen if number][1:]  # the first one was looked for
    assert len(set(drawn)) == len(drawn) == 4 * 4


def test_another_seed_draws_others(tasks):
    first, second = (trained(tasks, "protonet", Dropped, seed=seed)[0] for seed in (0, 1))
    assert not torch.equal(first, second)


def test_a_resumed_training_ends_with_the_same_bits(tasks, tmp_path, monkeypatch):
    whole, _ = trained(tasks, "protonet", Dropped, pretrain_examples=100)
    with monkeypatch.context() as patch:
        advance = Training.advance
        patch.setattr(Training, "advance", lambda self: (self.step < 2 and advance(self)) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trained(tasks, "protonet", Dropped, run=Run.open(tmp_path / "run", {}), pretrain_examples=100)
    torch.manual_seed(7)
    run = Run.open(tmp_path / "run", {}, resume=True)
    assert torch.equal(trained(tasks, "protonet", Dropped, run=run, pretrain_examples=100)[0], whole)


@pytest.mark.parametrize(
    ("network", "named"),
    [(AlwaysRandom, r"evaluation mode too \(bernoulli_\)"), (OwnGenerator, "from a generator of its own")],
)
def test_a_network_whose_draws_cannot_be_seeded_or_switched_off_is_refused(tasks, network, named):
    with pytest.raises(UserError, match=named):
        trained(tasks, "protonet", network)


def test_several_workers_are_refused(tasks):
    learner = LEARNERS["protonet"].build(tasks.spec, backbone=Dropped).train()
    settings = Settings(**STEPS)
    training = Training(learner, tasks.split("train"), tasks.split("val"), settings, workers=Workers(0, 2))
    with pytest.raises(UserError, match="Train with one worker"):
        training.see_to_randomness(ignore)
