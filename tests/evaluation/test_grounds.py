"""Rungs beside a learner that an encoder is a part of: on its vectors as it was published, and as it is now."""

import pytest
import torch

from handful.evaluation.costly import with_costly
from handful.evaluation.grounds import Unencoded, encoder_grounds
from handful.evaluation.ladder import Ladder
from handful.evaluation.scoring import FROZEN, TUNED, evaluate
from handful.pipelines.texts import TextPipeline
from handful.registry import LEARNERS
from handful.streams import seeded
from handful.tasks.labeled_pool import LabeledPool
from small_encoders import WORDS, WordEncoder, word_encoder  # noqa: F401 - a fixture

CLASSES, EACH = 12, 12
TASKS = 10


def tokens() -> LabeledPool:
    """Texts of four words, of which one in two is that of the class."""
    generator = seeded("texts")
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    own = labels.unsqueeze(1).expand(-1, 4)
    drawn = torch.randint(len(WORDS), own.shape, generator=generator)
    words = torch.where(torch.rand(own.shape, generator=generator) < 0.5, own, drawn)
    inputs = torch.cat([words, torch.full((len(words), 2), -1)], dim=1)
    splits = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}
    names = [f"class{number}" for number in range(CLASSES)]
    return LabeledPool(inputs.int(), labels, names, splits=splits).with_sizes(way=3, shot=2, query_shot=5)


def tuned(tasks, options, *, moved: float = 0.0):
    """A learner on an encoder whose weights have moved so far."""
    learner = LEARNERS["protonet"].build(tasks.spec, backbone="encoder", backbone_options=options, distance="cosine")
    with torch.no_grad():
        for number, weight in enumerate(learner.backbone.parameters()):
            weight += moved * torch.randn(weight.shape, generator=seeded(number))
    return learner


@pytest.fixture(scope="module", autouse=True)
def few_choosing_tasks():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("handful.evaluation.ladder.CHOOSING_TASKS", 2)
        yield


@pytest.fixture(scope="module")
def climbed(word_encoder):  # noqa: F811
    """A ladder of all cheap rungs beside a tuned learner, and its tasks."""
    tasks = tokens()
    ladder = Ladder(tuned(tasks, word_encoder(), moved=0.3), tasks, examples=256, minutes=0)
    return ladder.run(tasks.split("test"), tasks.split("val"), tasks=TASKS), tasks


def test_rungs_on_raw_inputs_stand_on_both_encoders_and_others_on_the_frozen_one(word_encoder):  # noqa: F811
    tasks = tokens()
    ladder = Ladder(tuned(tasks, word_encoder()), tasks, examples=1)
    names = [rung.name for rung in ladder.rungs]
    assert len(set(names)) == len(names)
    for key in ("centroid", "neighbors", "logistic-probe", "ridge-probe"):
        assert {f"{key}, {FROZEN}", f"{key}, {TUNED}"} <= set(names)
    assert {"dummy", f"transfer, {FROZEN}", f"scratch, {FROZEN}"} <= set(names)
    assert sum(TUNED in name for name in names) == 4
    assert "contrastive" in names


def test_the_contrastive_rung_tunes_all_layers_of_the_published_encoder(word_encoder):  # noqa: F811
    tasks = tokens()
    ladder = Ladder(tuned(tasks, word_encoder(1), moved=0.3), None, examples=0)
    [rung] = [rung for rung in ladder.rungs if rung.name == "contrastive"]
    learner = ladder.build(rung, {})
    published = WordEncoder("words").network().state_dict()
    assert learner.trainable == {f"network.{name}" for name in published}
    assert all(torch.equal(learner.backbone.network.state_dict()[name], weight) for name, weight in published.items())
    ladder.rungs = [rung, next(rung for rung in ladder.rungs if rung.name == f"centroid, {FROZEN}")]
    told = []
    ladder.on_event = told.append
    test, validation = tasks.split("test"), tasks.split("val")
    comparison = ladder.run(test, validation, tasks=7)
    comparison = with_costly(ladder, comparison, test, validation, tasks=7, seconds=600).comparison
    row = next(row for row in comparison.rows if row.evaluation.name == "contrastive")
    assert (row.evaluation.score.tasks, row.paired.tasks) == (7, 7)
    assert row.evaluation.state_bytes > 4 * sum(weight.numel() for weight in learner.backbone.parameters())
    assert any(event.seconds for event in told if event.work == "contrastive"), "how long it will take"


def test_a_rung_that_tunes_the_encoder_is_begun_only_with_time_for_enough_tasks(word_encoder, monkeypatch):  # noqa: F811
    """Fewer would take minutes and decide nothing; that is found out by a few of its steps."""
    tasks, adapted = tokens(), []
    ladder = Ladder(tuned(tasks, word_encoder(1)), None, examples=0)
    ladder.rungs = [rung for rung in ladder.rungs if rung.name in ("contrastive", f"centroid, {FROZEN}")]
    test, validation = tasks.split("test"), tasks.split("val")
    comparison = ladder.run(test, validation, tasks=30)

    def cost(learner, setting):
        adapted.append(learner.pairs)
        return 0.1 * learner.pairs, {}

    monkeypatch.setattr("handful.evaluation.costly.cost", cost)
    found = with_costly(ladder, comparison, test, validation, tasks=30, seconds=700)
    assert found.left_out == {"contrastive": pytest.approx(40.0)}, "seconds of each task"
    assert adapted == [64]
    assert found.comparison.rows == comparison.rows
    found = with_costly(ladder, comparison, test, validation, tasks=15, seconds=700)
    assert found.left_out == {}
    assert adapted == [64, 64, 400]
    [scored] = [row.evaluation for row in found.comparison.rows if row.evaluation.name == "contrastive"]
    assert len(scored.scores) == 15


def test_beside_a_frozen_encoder_a_rung_tunes_it_on_the_same_tasks(word_encoder):  # noqa: F811
    tasks, whole, opened = tokens(), tokens(), []
    word_encoder()
    whole.pipeline = TextPipeline(text="text", encoder="words", revision="1", width=6, layers=None)
    encoded = WordEncoder("words").network()
    vectors = LabeledPool(
        encoded(tasks.inputs).detach(),
        tasks.labels,
        tasks.names,
        splits={on: c.tolist() for on, c in tasks.splits.items()},
    ).with_sizes(way=3, shot=2, query_shot=5)

    def open_whole():
        opened.append(True)
        return whole

    learner = LEARNERS["protonet"].build(vectors.spec, backbone="linear", distance="cosine")
    ladder = Ladder(learner, None, examples=0, unencoded=Unencoded(open_whole))
    assert not opened, "before a rung needs it"
    [rung] = [rung for rung in ladder.rungs if rung.name == "contrastive"]
    assert not any(rung.name == "contrastive" for rung in Ladder(learner, None, examples=0).rungs)
    test = vectors.split("test").with_sizes(shot=1)
    for number in range(3):
        shown, read = test.task(number), rung.ground.tasks(test).task(number)
        assert torch.allclose(encoded(read.query.inputs), shown.query.inputs, atol=1e-6)
        assert torch.equal(read.support.targets, shown.support.targets)
    learner = ladder.build(rung, {})
    assert learner.trainable == {f"network.{name}" for name in encoded.state_dict()}
    ladder.rungs = [rung, next(rung for rung in ladder.rungs if rung.name == "centroid")]
    comparison = ladder.run(test, vectors.split("val"), tasks=3)
    comparison = with_costly(ladder, comparison, test, vectors.split("val"), tasks=3, seconds=600).comparison
    [row] = [row for row in comparison.rows if row.evaluation.name == "contrastive"]
    assert row.paired.tasks == 3
    assert len(opened) == 1


def test_inputs_that_take_longer_to_read_than_the_time_are_not_read(word_encoder):  # noqa: F811
    tasks = tokens()
    word_encoder()
    learner = LEARNERS["protonet"].build(tasks.spec, backbone="linear")

    def opened():
        raise AssertionError("they are read")

    ladder = Ladder(learner, None, examples=0, unencoded=Unencoded(opened, seconds=3600))
    ladder.rungs = [rung for rung in ladder.rungs if rung.name in ("contrastive", "dummy")]
    test, validation = tasks.split("test"), tasks.split("val")
    comparison = ladder.run(test, validation, tasks=3)
    found = with_costly(ladder, comparison, test, validation, tasks=3, seconds=600)
    assert found.left_out == {"contrastive": None}


def test_rungs_on_the_tuned_encoder_are_no_alternative_to_the_learner(climbed):
    """Its meta-training tuned that encoder."""
    comparison, _ = climbed
    assert comparison.best_rung.evaluation.ground != TUNED
    assert comparison.learner.against == comparison.best_rung.evaluation.name
    assert all(row.evaluation.ground != TUNED for row in comparison.undecided)
    assert all(row.evaluation.uses_other_tasks for row in comparison.rows[1:] if row.evaluation.ground == TUNED)
    assert comparison.best_alone.evaluation.ground == FROZEN


def test_the_tuned_centroid_is_the_learner_and_the_frozen_one_the_published_encoder(climbed, word_encoder):  # noqa: F811
    comparison, tasks = climbed
    rows = {row.evaluation.name: row.evaluation for row in comparison.rows}
    assert torch.equal(rows[f"centroid, {TUNED}"].scores, rows["protonet"].scores)
    published = evaluate(tuned(tasks, word_encoder()), tasks.split("test"), tasks=TASKS)
    assert torch.equal(rows[f"centroid, {FROZEN}"].scores, published.scores)
    assert not torch.equal(published.scores, rows["protonet"].scores)


def test_what_tuning_and_what_adapting_bring_are_paired_differences(climbed):
    comparison, _ = climbed
    bought = comparison.bought
    assert (bought.frozen.ground, bought.tuned.ground, bought.best.ground) == (FROZEN, TUNED, TUNED)
    assert bought.frozen.learner == bought.tuned.learner
    assert bought.tuning.mean == pytest.approx(float((bought.tuned.scores - bought.frozen.scores).mean()))
    assert bought.adapting.mean == pytest.approx(float((bought.learner.scores - bought.best.scores).mean()))
    means = {row.evaluation.name: row.evaluation.score.mean for row in comparison.rows}
    on_tuned = {name.removesuffix(TUNED): mean for name, mean in means.items() if name.endswith(TUNED)}
    assert bought.frozen.learner == "centroid", "which no score has chosen"
    assert bought.best.score.mean == max(on_tuned.values())


def test_a_learner_without_an_encoder_has_no_grounds():
    tasks = tokens()
    assert encoder_grounds(LEARNERS["protonet"].build(tasks.spec, backbone="mlp"), tasks) is None


@pytest.mark.slow
def test_each_example_is_encoded_once_by_each_encoder(word_encoder):  # noqa: F811
    """However many settings, numbers of examples and rungs there are."""
    tasks = tokens()
    learner, seen = tuned(tasks, word_encoder()), []
    ladder = Ladder(learner, None, examples=0, minutes=0)
    for ground in ladder._encoders:
        ground.network.register_forward_hook(lambda module, inputs, outputs: seen.append(len(inputs[0])))
    comparison = ladder.run(tasks.split("test"), tasks.split("val"), tasks=TASKS)
    curves = ladder.shots_curve(tasks.split("test"), tasks.split("val"), comparison, (1, 3), tasks=TASKS)
    found = ladder.equivalence(tasks.split("test"), tasks.split("val"), tasks=TASKS, examples=(1, 3))
    assert len(curves) >= 2
    assert all(len(points) == 2 for points in curves.values())
    assert not found.curve or all(TUNED not in name for name in map(str, found.curve))
    timed = 2 * 2 * 3 * (1 + 2 + 3)
    assert sum(seen) <= 2 * (2 * 3 * EACH + 1) + timed, "three classes of val and test, one for the width, timed ones"


def test_the_cost_of_a_rung_on_an_encoder_is_that_of_encoding_too(word_encoder, monkeypatch):  # noqa: F811
    tasks = tokens()
    ladder = Ladder(tuned(tasks, word_encoder()), None, examples=0, minutes=0)
    monkeypatch.setattr(type(ladder._encoders[0]), "seconds", lambda ground, tasks: 3.0 if ground.network else 0.0)
    for rung in ladder.rungs:
        found = ladder.scored(rung, {}, tasks.split("test"), 1)
        assert (found.adapt_seconds >= 3) == (rung.ground.name != ""), rung.name


def test_options_on_vectors_are_chosen_by_few_examples_of_each_class(word_encoder, monkeypatch):  # noqa: F811
    monkeypatch.setattr("handful.evaluation.grounds.THINNED", 3)
    tasks = tokens()
    ladder = Ladder(tuned(tasks, word_encoder()), None, examples=0, minutes=0)
    validation = tasks.split("val")
    chosen = {rung.ground.name: rung.ground.choosing(validation) for rung in ladder.rungs}
    assert chosen[""] is validation
    assert chosen[FROZEN].counts.tolist() == chosen[TUNED].counts.tolist() == [7] * CLASSES, "enough for a task"
    assert chosen[FROZEN].sizes == validation.sizes
