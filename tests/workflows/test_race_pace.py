"""A pre-training that ends in time, however fast its steps turn out to be, and with the same bits again."""

import json
from types import SimpleNamespace

import pytest
import torch

from handful.learners.pretrained_blocks import PretrainedBlocks
from handful.learners.pretraining import BATCH, Pretraining
from handful.storage import digest_of
from handful.tasks.distribution import Pool
from handful.types import Examples, TaskSpec
from handful.workflows import race_record
from handful.workflows.race_pace import LOOKS, Pace
from handful.workflows.race_record import RaceRecord
from handful.workflows.race_steps import LAST_PART

SPEC = TaskSpec("classification", (4,), 3)
STEPS, UNTIL = 300, 303.3333
"""As many steps of a second, and the forward passes at their end."""


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def clock(monkeypatch):
    """The time of races; it passes when the test lets it."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(race_record, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def pretrained(clock, tmp_path, monkeypatch):
    """Pre-train with a pace, `speed` being the seconds of a step by its number.

    Returns the digest of the weights, the record, and the rates of all steps.
    """
    rates = []
    advance = Pretraining.advance

    def advanced(pretraining):
        if pretraining.step == pretrain.killed_at:
            raise Killed
        clock.now += pretrain.speed(pretraining.step)
        advance(pretraining)
        rates.append(pretraining.optimizer.param_groups[0]["lr"])

    def draw(generator, count):
        return Examples(torch.randn(count, 4, generator=generator), torch.randint(7, (count,), generator=generator))

    def pretrain(speed, record, keeper=None, killed_at=None):
        pretrain.speed, pretrain.killed_at = speed, killed_at
        rates.clear()
        learner = PretrainedBlocks.build(SPEC, backbone="mlp", backbone_options={"hidden": (3,)})
        pace = Pace(record, "one", 0.0, UNTIL, keeper)
        learner.pretrain(Pool(7, draw), examples=STEPS * BATCH, keeper=pace)
        return digest_of(learner.state_dict()), pace, rates

    monkeypatch.setattr(Pretraining, "advance", advanced)
    return pretrain


def record(path, **facts):
    path.mkdir(exist_ok=True)
    return RaceRecord(path / "race.json", 5.0, **facts)


def slower(step):
    return 1.0 if step < 100 else 5.0


def test_at_the_pace_that_was_planned_nothing_changes(pretrained, clock, tmp_path):
    made = record(tmp_path)
    _, pace, rates = pretrained(lambda step: 1.0, made)
    assert made.decided == {}
    assert len(rates) == STEPS
    assert pace.examples == STEPS * BATCH
    assert pace.slowdown == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("speed", "steps"),
    [
        (slower, 100 + 200 / 5),
        (lambda step: 1.0 if step < 250 else 10.0, 250 + 50 / 10),
        (lambda step: 0.25 if step > 100 else 1.0, 100 + 200 * 4),
        (lambda step: 4.0 if step < 20 else 0.5, 20 + 220 * 2),
        (lambda step: 1.0 + step % 7, STEPS / 4),
    ],
    ids=["slower", "late", "faster", "slow at first", "uneven"],
)
def test_it_ends_in_time_with_the_rate_at_zero(speed, steps, pretrained, clock, tmp_path):
    made = record(tmp_path)
    _, pace, rates = pretrained(speed, made)
    assert 0.85 * UNTIL < clock.now < 1.05 * UNTIL
    assert pace.examples == len(rates) * BATCH == pytest.approx(steps * BATCH, rel=0.15)
    assert rates[-1] < 0.1 * max(rates)
    assert len(made.decided) < LOOKS


def test_where_the_time_is_over_the_rate_still_falls_to_zero_in_the_last_steps(pretrained, clock, tmp_path):
    _, pace, rates = pretrained(lambda step: 200.0 if step == 200 else 1.0, record(tmp_path))
    assert 204 < len(rates) < 200 * (1 + LAST_PART)
    assert rates[-1] < 0.2 * max(rates)
    assert pace.slowdown > 1.5


def test_the_corrections_of_another_race_give_its_bits(pretrained, tmp_path):
    first = record(tmp_path / "first")
    digest, pace, _ = pretrained(slower, first)
    again, same, _ = pretrained(lambda step: 1.0, record(tmp_path / "again", decided=first.decided, given=True))
    assert (again, same.examples) == (digest, pace.examples)


class Saved:
    """A `Keeper` that saves each twentieth step."""

    steps = content = None

    def begin(self, pretraining):
        if self.content:
            assert pretraining.continues(self.content[1])
            pretraining.restore(*self.content)

    def after_step(self, pretraining):
        if pretraining.step % 20 == 0 or pretraining.step == pretraining.steps:
            tensors, facts = pretraining.state()
            self.content = {name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(facts))


@pytest.mark.parametrize("killed_at", [50, 105, 119, 130])
def test_killed_and_resumed_it_has_the_bits_of_its_corrections(killed_at, pretrained, tmp_path):
    keeper, made = Saved(), record(tmp_path / "run")
    with pytest.raises(Killed):
        pretrained(slower, made, keeper, killed_at)
    digest, pace, rates = pretrained(slower, made, keeper)
    assert len(rates) == pace.examples // BATCH - killed_at // 20 * 20
    again, same, _ = pretrained(slower, record(tmp_path / "again", decided=made.decided, given=True))
    assert (again, same.examples) == (digest, pace.examples)


def test_it_continues_its_own_and_one_that_ended_after_as_many_steps(pretrained, tmp_path):
    keeper = Saved()
    _, pace, _ = pretrained(lambda step: 1.25, record(tmp_path), keeper)
    _, facts = keeper.content
    assert facts["step"] == facts["identity"]["steps"] == pace.examples // BATCH < STEPS
    steps = facts["step"]
    started = SimpleNamespace(identity=facts["identity"])

    def continues(steps, **changed):
        started.identity = facts["identity"] | {"steps": steps}
        return Pretraining.continues(started, facts | changed)

    assert continues(STEPS)
    assert continues(steps)
    assert not continues(steps, step=steps - 1), "with another schedule"
    assert not continues(steps + 1)
    del facts["planned"]
    assert not continues(STEPS), "an earlier version wrote it"
