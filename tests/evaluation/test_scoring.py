"""The protocol: scores are those of each task alone, on the same tasks for all, and nothing is changed on the way."""

import pytest
import torch
from torch.distributions import Normal

from evaluation.toys import (
    Clusters,
    Collection,
    Failing,
    FailingLine,
    KnownSlopes,
    Large,
    Line,
    Slopes,
    Toy,
    UnsureLine,
    Whispering,
)
from handful.errors import DataError, HandfulError, UserError
from handful.evaluation.intervals import interval
from handful.evaluation.scoring import LEVELS, check_tasks, evaluate
from handful.learners.prototypical import PrototypicalNetwork
from handful.registry import LEARNERS
from handful.training.loop import meta_train
from handful.types import Examples, Task, TaskSpec
from noted import noted
from results import evaluation, noisy


class Wide(torch.nn.Module):
    """Makes much of its inputs, and remembers how many there were."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.note = self.seen.append  # also of copies

    def forward(self, inputs):
        self.note(len(inputs))
        return inputs.repeat(1, 100).reshape(len(inputs), 100, -1).mean(1)


@pytest.mark.parametrize("at_once", [3, 1000])
def test_many_queries_of_a_task_are_scored_in_parts(at_once, monkeypatch):
    tasks = Clusters().with_sizes(way=2, shot=1, query_shot=11).split("test")
    learner = LEARNERS["protonet"].build(tasks.spec, backbone=lambda shape: Wide())
    expected = [by_hand(learner, tasks, index) for index in range(3)]
    learner.backbone.seen.clear()
    monkeypatch.setattr("handful.evaluation.scoring.BYTES_AT_ONCE", at_once * 4 * 100 * tasks.spec.input_shape[0] * 2)
    assert evaluate(learner, tasks, tasks=3).scores.tolist() == expected
    assert (max(learner.backbone.seen) <= 6) == (at_once == 3)


def test_the_learner_stays_in_its_mode_while_it_is_evaluated():
    tasks = Clusters().split("test")
    learner, modes = Toy.build(tasks.spec, backbone="raw").train(), []
    evaluate(learner, tasks, tasks=3, on_event=lambda event: modes.append(learner.training))
    assert modes
    assert all(modes)


def test_an_evaluation_says_where_memory_does_not_suffice(monkeypatch):
    learner = Toy.build(Clusters().spec, backbone="raw")

    def full(*arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 12 bytes")

    monkeypatch.setattr(learner, "adapt", full)
    with pytest.raises(HandfulError, match="Out of memory while evaluating 'toy'"):
        evaluate(learner, Clusters(), tasks=3)


class Ragged(Slopes):
    """Tasks that differ in their number of query examples."""

    ragged = True

    def sample(self, generator, sizes):
        task = super().sample(generator, sizes)
        count = int(torch.randint(1, 7, (), generator=generator))
        return Task(task.support, Examples(*(part[:count] for part in task.query)))


def by_hand(learner, distribution, index):
    task, spec = distribution.task(index), distribution.spec_of(index)
    prediction = learner.predict(learner.adapt(task.support, spec), task.query.inputs)
    if spec.classification:
        return float((prediction.logits.argmax(-1) == task.query.targets).double().mean())
    return 100 * float((prediction.mean - task.query.targets).square().mean())  # target_scale 10


@pytest.mark.parametrize(
    ("cls", "distribution"),
    [
        (Toy, Clusters()),
        (Toy, Clusters().with_sizes(way=(3, 5), shot=(1, 3), query_shot=(2, 4))),
        (Line, Slopes()),
        (Line, Ragged()),
    ],
    ids=["equal sizes", "sizes of blocks", "regression in the user's units", "ragged"],
)
def test_scores_are_those_of_each_task_alone(cls, distribution):
    learner = cls.build(distribution.spec, backbone="raw")
    found = evaluate(learner, distribution.split("test"), tasks=150)
    expected = [by_hand(learner, distribution.split("test"), index) for index in range(150)]
    assert torch.allclose(found.scores, torch.tensor(expected, dtype=torch.float64), rtol=1e-5)
    assert found.score == interval(found.scores)
    assert len(set(expected)) > 3, "the tasks differ, so a mix-up would show"


@pytest.mark.parametrize("kind", [torch.int64, torch.float64])
def test_inputs_of_a_type_that_the_learner_does_not_take_are_told(kind):
    class Other(Slopes):
        def sample(self, generator, sizes):
            task = super().sample(generator, sizes)
            return Task(*(Examples((99 * part.inputs).to(kind), part.targets) for part in task))

    learner = LEARNERS["r2d2"].build(Other().spec, backbone="mlp")
    for work in (evaluate, meta_train):
        with pytest.raises(DataError, match=f"inputs of type torch.float32, not {kind}"):
            work(learner, Other())


class TwoSlopes(Slopes):
    """Two targets, the second in much larger units."""

    def __init__(self):
        super().__init__()
        self.target_mean, self.target_scale = torch.tensor([[20.0, 1013.0], [2.0, 300.0]]).double()

    def spec_for(self, sizes):
        return TaskSpec("regression", (1,), 2)

    def sample(self, generator, sizes):
        task = super().sample(generator, sizes)
        return Task(*(Examples(part.inputs, torch.cat([part.targets, -part.targets], 1)) for part in task))


@pytest.mark.parametrize(("metric", "power"), [("rmse", 2), ("mae", 1)])
def test_of_several_targets_the_score_is_that_of_the_standardized_ones(metric, power):
    tasks = TwoSlopes()
    found = evaluate(LEARNERS["neighbors"].build(tasks.spec, backbone="raw"), tasks, tasks=4, metric=metric)
    assert found.target_names == ("target 1", "target 2")
    torch.testing.assert_close(found.target_scores[:, 0] * 150**power, found.target_scores[:, 1])
    torch.testing.assert_close(found.scores, found.target_scores[:, 0] / 2**power)
    assert found.by_target["target 2"].mean == pytest.approx(found.score.mean * 300**power)


def test_an_evaluation_is_by_the_metric_that_was_asked_for():
    tasks = Clusters().with_sizes(way=2, query_shot=4)
    learner = Toy.build(tasks.spec, backbone="raw")
    found = {name: evaluate(learner, tasks, tasks=5, metric=name) for name in ("accuracy", "auc", "log-likelihood")}
    assert {name: one.metric.name for name, one in found.items()} == {name: name for name in found}
    assert (found["auc"].scores >= found["accuracy"].scores - 0.5).all()
    assert (found["log-likelihood"].scores < 0).all()
    with pytest.raises(UserError, match="'rmse' cannot score classification"):
        evaluate(learner, tasks, tasks=2, metric="rmse")


def test_a_score_that_is_undefined_is_left_out_and_counted():
    """A point prediction has no likelihood, and is not diverged."""
    found = evaluate(Line.build(Slopes().spec, backbone="raw"), Slopes(), tasks=3, metric="log-likelihood")
    assert found.scores.isnan().all()
    assert (found.score.undefined, found.score.diverged, found.score.tasks, found.unscored) == (3, 0, 0, 0)


@pytest.mark.parametrize(
    ("cls", "tasks", "kept"),
    [
        (
            Toy,
            Clusters(inputs=Clusters().inputs[:, 30:]).with_sizes(way=(3, 5), shot=4),
            lambda way: [4 * label + i for label in range(way) for i in (0, 1)],
        ),
        (Line, Slopes(), lambda way: [0, 1]),
        (Line, Ragged(), lambda way: [0, 1]),
    ],
    ids=["of each class", "of a task", "ragged"],
)
def test_of_a_part_of_the_support_the_same_queries_are_answered(cls, tasks, kept):
    learner = cls.build(tasks.spec, backbone="raw")
    found = evaluate(learner, tasks, tasks=70, shot=2)
    assert found.shot == 2

    class Part:
        task = staticmethod(lambda index: _part(tasks.task(index), kept(tasks.sizes_of(index).way)))
        spec_of = tasks.spec_of

    expected = [by_hand(learner, Part, index) for index in range(70)]
    assert torch.allclose(found.scores, torch.tensor(expected, dtype=torch.float64), rtol=1e-5)
    assert not torch.allclose(found.scores, evaluate(learner, tasks, tasks=70).scores)


def _part(task, rows):
    return Task(Examples(*(part[rows] for part in task.support)), task.query)


@pytest.mark.parametrize("shot", [-1, 0, 3, 4])
def test_a_part_of_a_support_is_not_larger_than_the_smallest(shot):
    """Tasks of 2 examples of each class would be told as of 4."""
    tasks = Clusters().with_sizes(shot=(2, 4))
    with pytest.raises(UserError, match=f"1 to 2 examples, got shot={shot}"):
        evaluate(Toy.build(tasks.spec, backbone="raw"), tasks, tasks=3, shot=shot)


def test_a_part_of_a_support_that_knows_the_rest_of_it_is_none():
    class Standardized(Slopes):
        nested = False

    with pytest.raises(UserError, match=r"standardized by the whole support.*with_sizes\(shot=2\)"):
        evaluate(Line.build(Slopes().spec, backbone="raw"), Standardized(), tasks=3, shot=2)


def test_the_best_prediction_is_not_known_for_a_part_of_the_support():
    learner = UnsureLine.build(Slopes().spec, backbone="raw")
    assert evaluate(learner, KnownSlopes(), tasks=3, shot=2).error_gap is None


class Branching(Toy):
    """Branches by its inputs, which `vmap` refuses."""

    def predict(self, state, inputs):
        return super().predict(state, inputs if bool(inputs.isfinite().all()) else inputs.nan_to_num())


def test_a_learner_that_vmap_refuses_is_evaluated_one_task_after_another_and_says_so_once():
    tasks = Clusters()
    learner = Branching.build(tasks.spec, backbone="raw")
    with noted("Branching adapts and predicts one task after another") as notes:
        found = [evaluate(learner, tasks, tasks=90) for _ in range(2)]
    assert len(notes) == 1
    expected = evaluate(Toy.build(tasks.spec, backbone="raw"), tasks, tasks=90).scores
    assert all(torch.equal(one.scores, expected) for one in found)


def test_fewer_tasks_are_the_first_ones():
    learner = Toy.build(Clusters().spec, backbone="raw")
    few, many = (evaluate(learner, Clusters(), tasks=count) for count in (7, 90))
    assert torch.equal(few.scores, many.scores[:7])


def test_an_evaluation_leaves_the_learner_as_it_was():
    """TRAPS T4, T29: also in training mode, with batch norm, and without a graph of what was done."""
    tasks = Clusters()
    network = torch.nn.Sequential(torch.nn.Linear(40, 8), torch.nn.BatchNorm1d(8))
    learner = LEARNERS["protonet"].build(tasks.spec, backbone=network).train()
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    first, second = (evaluate(learner, tasks, tasks=5) for _ in range(2))
    assert torch.equal(first.scores, second.scores)
    assert learner.training
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.state_dict().items())
    assert not first.scores.requires_grad
    assert not first.confidences.requires_grad
    assert all(parameter.grad is None for parameter in learner.parameters())


def test_a_learner_is_scored_as_it_is_used_later_not_as_it_is_trained():
    class Moody(Toy):
        def adapt(self, support, spec):
            assert not self.training
            return super().adapt(support, spec)

    learner = Moody.build(Clusters().spec, backbone="raw").train()
    evaluate(learner, Clusters(), tasks=2)
    assert learner.training


def test_it_tells_sizes_confidences_costs_and_transduction():
    tasks = Clusters()
    learner = Whispering.build(tasks.spec, backbone="raw")
    found = evaluate(learner, tasks, tasks=6)
    assert (found.way, found.shot, found.query_shot, found.metric.name) == (5, 2, 3, "accuracy")
    assert not found.transductive
    assert len(found.confidences) == len(found.correct) == 6 * 15
    assert ((found.confidences >= 1 / 5) & (found.confidences <= 1)).all()
    assert found.correct.double().mean() == pytest.approx(found.score.mean)
    assert found.state_bytes == 5 * 40 * 4
    assert 0 < found.adapt_seconds < 1
    learner.transductive = True
    assert evaluate(learner, tasks, tasks=2).transductive


def test_draws_of_one_unit_count_once():
    tasks = Collection(tasks={"train": 4, "val": 3, "test": 3})
    found = evaluate(Line.build(tasks.spec, backbone="raw"), tasks, tasks=20)
    assert found.units.tolist() == [index % 4 for index in range(20)]
    assert found.score.tasks == 4


def test_progress_counts_up_to_all_tasks():
    heard = []
    evaluate(
        Toy.build(Clusters().spec, backbone="raw"),
        Clusters(),
        tasks=100,
        on_event=lambda event: heard.append((event.done, event.total)),
    )
    assert heard[-1] == (100, 100)
    assert heard == sorted(heard)
    assert len(heard) > 1


# Predictions that say how sure they are


class RaggedSlopes(KnownSlopes, Ragged):
    """Ragged tasks of which the best prediction is known."""


@pytest.mark.parametrize("tasks", [KnownSlopes(), RaggedSlopes()], ids=["equal sizes", "ragged"])
def test_likelihoods_and_coverages_are_those_of_each_task_alone_in_the_users_units(tasks):
    """Targets are in units of 10, so that a deviation of 0.2 is one of 2 to the user."""
    learner = UnsureLine.build(tasks.spec, backbone="raw")
    found = evaluate(learner, tasks, tasks=120)
    for index in range(120):
        task = tasks.task(index)
        mean = 10 * learner.predict(learner.adapt(task.support, tasks.spec), task.query.inputs).mean
        said, truth = Normal(mean, 2.0), 10 * task.query.targets
        assert found.log_likelihoods[index].item() == pytest.approx(said.log_prob(truth).mean().item(), rel=1e-4)
        for column, level in enumerate(LEVELS):
            low, high = (said.icdf(torch.tensor((1 + sign * level) / 2)) for sign in (-1, 1))
            share = ((low <= truth) & (truth <= high)).double().mean().item()
            assert found.coverages[index, column].item() == pytest.approx(share)
        oracle = tasks.oracle(index)
        best = Normal(10 * oracle.mean, 10 * oracle.variance.sqrt())
        assert found.oracle_log_likelihoods[index].item() == pytest.approx(best.log_prob(truth).mean().item(), rel=1e-4)
        error = (10 * oracle.mean - truth).square().mean().item()
        assert found.oracle_scores[index].item() == pytest.approx(error, rel=1e-4)
    assert found.log_likelihood == interval(found.log_likelihoods)
    assert found.coverage[0.9] == interval(found.coverages[:, LEVELS.index(0.9)])
    assert found.error_gap == interval(found.scores - found.oracle_scores)
    assert found.likelihood_gap == interval(found.oracle_log_likelihoods - found.log_likelihoods)


def test_no_prediction_is_better_than_the_best():
    tasks = KnownSlopes()
    found = evaluate(UnsureLine.build(tasks.spec, backbone="raw"), tasks, tasks=600)
    assert found.likelihood_gap.low > 0
    assert found.error_gap.mean > 0
    assert found.coverage[0.5].low > 0.55, "a deviation of 0.2 where there is one of 0.1 is too modest"


def test_what_there_is_not_is_none():
    point = evaluate(Line.build(Slopes().spec, backbone="raw"), Slopes(), tasks=3)
    assert point.log_likelihood is None
    assert point.coverage == {}
    assert point.error_gap is None
    only_errors = evaluate(Line.build(Slopes().spec, backbone="raw"), KnownSlopes(), tasks=3)
    assert only_errors.error_gap is not None
    assert only_errors.likelihood_gap is None
    unheld = evaluate(UnsureLine.build(Slopes().spec, backbone="raw"), Slopes(), tasks=3)
    assert unheld.log_likelihood is not None
    assert unheld.likelihood_gap is None
    classes = evaluate(Toy.build(Clusters().spec, backbone="raw"), Clusters(), tasks=3)
    assert classes.log_likelihood is None


# Predictions that are not finite


@pytest.mark.parametrize(
    ("cls", "sound", "tasks"),
    [(Failing, Toy, Clusters()), (FailingLine, UnsureLine, KnownSlopes())],
    ids=["accuracy", "error"],
)
def test_a_draw_that_diverges_is_counted_and_has_the_worst_score_or_none(cls, sound, tasks):
    failing, whole = (evaluate(one.build(tasks.spec, backbone="raw"), tasks, tasks=60) for one in (cls, sound))
    bad = torch.tensor([bool(tasks.task(index).support.inputs[0, -1] > 1) for index in range(60)])
    assert 0 < bad.sum() < 30
    assert torch.equal(failing.diverged, bad)
    assert not whole.diverged.any()
    assert failing.score.diverged == bad.sum()
    assert torch.equal(failing.scores[~bad], whole.scores[~bad])
    if tasks.spec.classification:
        assert failing.score.mean == pytest.approx(float(whole.scores.where(~bad, 0.0).mean())), "wrong, all of them"
        assert (failing.score.tasks, failing.unscored, failing.behind(whole)) == (60, 0, 0)
        assert len(failing.confidences) == len(failing.correct) == 15 * int((~bad).sum())
        assert failing.confidences.isfinite().all()
        return
    assert failing.score.mean == pytest.approx(float(whole.scores[~bad].mean())), "an error has no worst value"
    assert (failing.score.tasks, failing.unscored) == (60 - bad.sum(), bad.sum())
    assert (failing.behind(whole), whole.behind(failing)) == (bad.sum(), -bad.sum())
    gain = whole.gain_over(failing)
    assert (gain.mean, gain.diverged) == (0, bad.sum()), "on the draws that both have"
    assert failing.log_likelihood.mean == pytest.approx(float(whole.log_likelihoods[~bad].mean()), rel=1e-6)
    assert failing.log_likelihood.diverged == failing.error_gap.diverged == failing.likelihood_gap.diverged == bad.sum()
    assert failing.coverage[0.9].mean == pytest.approx(float(whole.coverages[:, 8].where(~bad, 0.0).mean()))


# Pairs


def test_a_gain_is_positive_for_the_better_one_and_only_of_the_tasks_of_both():
    good, bad = evaluation("good", noisy(0.9)), evaluation("bad", noisy(0.7, 30, seed=1))
    gain = good.gain_over(bad)
    assert gain == interval(good.scores[:30] - bad.scores)
    assert gain.tasks == 30
    back = bad.gain_over(good)
    assert (back.mean, back.low, back.high) == pytest.approx((-gain.mean, -gain.high, -gain.low))
    small, large = (evaluation(name, noisy(mse), metric="rmse") for name, mse in (("a", 4.0), ("b", 9.0)))
    assert small.gain_over(large).mean == pytest.approx(5)


def test_pairing_takes_out_what_tasks_have_in_common():
    """Both learners find the same tasks hard: the difference is far surer than either score (TRAPS T23)."""
    hard = noisy(0.5, spread=0.3)
    one, other = evaluation("one", hard + 0.02 + noisy(0, spread=0.01, seed=1)), evaluation("other", hard)
    assert one.gain_over(other).low > 0
    assert one.score.low < other.score.high


# Mistakes


def test_what_a_learner_cannot_do_is_refused_with_the_reason():
    learner = Toy.build(Clusters().spec, backbone="raw")
    with pytest.raises(UserError, match="made for classification, but these tasks are regression"):
        evaluate(learner, Slopes())
    with pytest.raises(UserError, match="at least 1 task, got 0"):
        evaluate(learner, Clusters(), tasks=0)
    with pytest.raises(UserError, match=r"inputs of shape \(40,\), but these tasks have \(3,\)"):
        evaluate(learner, Clusters(inputs=Clusters().inputs[:, :3]))
    assert evaluate(learner, Clusters().with_sizes(way=3), tasks=2).way == 3
    learner.any_way = False
    with pytest.raises(UserError, match="made for 5 classes only, but these tasks have 3"):
        evaluate(learner, Clusters().with_sizes(way=3))


def test_tokens_that_a_network_does_not_have_are_told_with_the_way_out():
    class Tokens(torch.nn.Module):
        def __init__(self, input_shape):
            super().__init__()
            self.embedding = torch.nn.Embedding(3, 4)

        def forward(self, inputs):
            return self.embedding(inputs.long()).mean(1)

    class Ids(Clusters):
        most = 3

        def sample(self, generator, sizes):
            (inputs, targets), query = super().sample(generator, sizes)
            return Task(Examples((10 * inputs).abs().floor().clamp(max=self.most - 1), targets), query)

    tasks = Ids()
    learner = PrototypicalNetwork.build(tasks.spec, backbone=Tokens)
    check_tasks(learner, tasks)
    tasks.most = 4
    with pytest.raises(UserError, match=r"looks up token ids beyond its vocabulary .*inputs="):
        check_tasks(learner, tasks)


@pytest.mark.parametrize("key", ["protonet", "r2d2"])
@pytest.mark.parametrize("shot", [None, 1])
def test_a_large_network_sees_each_example_once(key, shot, monkeypatch):
    tasks = Clusters().with_sizes(way=3, shot=2, query_shot=4).split("test")
    learner = LEARNERS[key].build(tasks.spec, backbone=lambda shape: Large(*shape))
    rows = learner.backbone.rows
    rows.clear()
    found = evaluate(learner, tasks, tasks=60, shot=shot)
    examples = len({row for index in range(60) for part in tasks.manifest(index)[1:] for row in part})
    support = 3 * (shot or 2)
    assert sum(rows) <= examples + 1 + 4 * support, "those of four timed adaptations, and one for the width"
    rows.clear()
    monkeypatch.setattr(type(learner), "features_only", False)
    learner.features_only = False
    plain = evaluate(learner, tasks, tasks=60, shot=shot)
    assert sum(rows) > 60 * 15
    assert torch.equal(found.scores, plain.scores)
    assert torch.allclose(found.confidences, plain.confidences, atol=1e-5)
    assert found.state_bytes == plain.state_bytes
    assert found.classes == plain.classes
    assert isinstance(learner.backbone, Large), "the learner stays as it is"


def test_a_large_network_that_tasks_change_sees_their_examples_anew():
    tasks = Clusters().with_sizes(way=3, shot=2, query_shot=4).split("test")
    learner = LEARNERS["maml"].build(tasks.spec, backbone=lambda shape: Large(*shape), inner_steps=1)
    learner.backbone.rows.clear()
    evaluate(learner, tasks, tasks=60)
    assert sum(learner.backbone.rows) > 60 * 18
