"""The doctor finds planted faults, and is silent where all is well."""

from dataclasses import replace

import pytest
import torch

from evaluation.toys import (
    EACH,
    Clusters,
    Collection,
    Failing,
    FailingLine,
    FixedNumbers,
    Ignoring,
    Large,
    Leaking,
    Line,
    OneForAll,
    Slopes,
    Toy,
    Whispering,
)
from handful.doctor.diagnosis import diagnose
from handful.doctor.learner_checks import score_of, transduction
from handful.errors import UserError
from handful.evaluation.scoring import evaluate
from handful.registry import LEARNERS
from handful.tasks.glyphs import Glyphs


def found(distribution, learner=None, tasks=30):
    """Findings by check: status and message (the worst of a check)."""
    worst = {}
    for finding in diagnose(distribution, learner, tasks=tasks):
        before = worst.get(finding.check)
        if before is None or ["skipped", "ok", "warning", "problem"].index(finding.status) > before[1]:
            rank = ["skipped", "ok", "warning", "problem"].index(finding.status)
            worst[finding.check] = (finding.status, rank, f"{finding.message} {finding.hint}".rstrip())
    return {check: (status, message) for check, (status, _, message) in worst.items()}


def statuses(*args, **kwargs):
    return {check: status for check, (status, _) in found(*args, **kwargs).items()}


OF_TASKS = dict.fromkeys(("sizes", "overlap", "leakage", "near-duplicates", "diversity"), "ok")
SOUND = OF_TASKS | dict.fromkeys(("memorization", "transduction", "adaptation", "gap"), "ok")


def build(cls, distribution):
    return cls.build(distribution.spec, backbone="raw")


@pytest.mark.slow
def test_it_is_silent_on_letters_and_a_sound_learner():
    glyphs = Glyphs()
    options = {"backbone": "conv4", "backbone_options": {"widths": (8, 8, 8, 8)}}
    learner = LEARNERS["protonet"].build(glyphs.spec, **options).train()
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    assert statuses(glyphs, learner) == SOUND
    assert learner.training, "as it was"
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.state_dict().items())


def test_it_is_silent_on_the_toys_without_faults():
    found = statuses(Clusters(), build(Toy, Clusters()))
    assert found == SOUND | {"gap": "warning"}, "the toy's inputs say loudly which training class they are of"


@pytest.mark.parametrize("seed", range(5))
def test_chance_does_not_alarm_it(seed):
    tasks = Clusters(seed=seed)
    assert statuses(tasks, build(Toy, tasks), tasks=20)["memorization"] == "ok"


def test_without_a_learner_only_tasks_are_looked_at():
    assert statuses(Clusters()) == OF_TASKS


# Overlap


def test_a_query_example_that_is_in_the_support_is_found_by_its_id():
    status, message = found(Leaking())["overlap"]
    assert status == "problem"
    assert (
        "90 of 1,350 query examples of 30 tasks per split are in the support of the same task, by their ids" in message
    )


def test_a_query_example_that_equals_a_support_example_is_found_by_its_content():
    """Every example twice in the data, under two ids."""
    twice = Clusters().inputs.clone()
    twice[1::2] = twice[::2]
    status, message = found(Clusters(inputs=twice))["overlap"]
    assert status == "problem"
    assert "value for value (test, train, val)" in message
    assert "{group}" in message


def test_zero_and_minus_zero_are_one_number():
    class Signed(Clusters):
        def sample(self, generator, sizes):
            task = super().sample(generator, sizes)
            task.support.inputs[0], task.query.inputs[0] = 0.0, -0.0
            return task

    assert found(Signed())["overlap"][0] == "problem"


def test_equal_rows_of_few_numbers_are_a_warning_only():
    coarse = Clusters().inputs[:, :2].sign()
    assert found(Clusters(inputs=coarse))["overlap"][0] == "warning"


# Leakage


def test_a_class_in_two_splits_is_found_by_name():
    splits = {"train": list(range(30)), "val": list(range(30, 45)), "test": [7, *range(45, 60)]}
    status, message = found(Clusters(splits=splits))["leakage"]
    assert status == "problem"
    assert "1 class name shared between train and test: class7" in message


def test_a_class_in_two_splits_is_found_by_its_ids_where_names_are_not_told():
    class Nameless(Clusters):
        def split_manifest(self):
            return {}

    splits = {"train": list(range(30)), "val": list(range(25, 45)), "test": list(range(45, 60))}
    status, message = found(Nameless(splits=splits))["leakage"]
    assert status == "problem"
    assert "class ids of 30 tasks per split are shared between train and val" in message


def test_equal_examples_under_two_names_are_found_by_content():
    copied = Clusters().inputs.clone()
    copied[45 * 12 : 46 * 12] = copied[:12]
    status, message = found(Clusters(inputs=copied))["leakage"]
    assert status == "problem"
    assert "are equal between train and test, value for value" in message


def test_generated_tasks_have_nothing_to_leak():
    assert statuses(Slopes(), build(Line, Slopes())) == SOUND | {"leakage": "skipped", "near-duplicates": "skipped"}


# Sizes


def test_too_few_classes_for_the_way_are_a_problem_and_the_other_splits_are_still_checked():
    splits = {"train": list(range(30)), "val": [30, 31, 32], "test": list(range(33, 60))}
    tasks = Clusters(splits=splits)
    results = found(tasks, build(Toy, tasks))
    assert results["sizes"][0] == "problem"
    assert "The val split: A 5-way task" in results["sizes"][1]
    assert results["leakage"][0] == results["memorization"][0] == "ok"


def test_no_training_tasks_leave_the_learner_unchecked():
    tasks = Clusters(splits={"train": [0, 1], "val": list(range(2, 20)), "test": list(range(20, 60))})
    results = statuses(tasks, build(Toy, tasks.split("val")))
    assert (results["memorization"], results["transduction"]) == ("skipped", "skipped")


def test_few_classes_are_a_warning_that_says_what_they_mean():
    tasks = Clusters(splits={"train": list(range(15)), "val": list(range(15, 21)), "test": list(range(30, 60))})
    messages = [f.message for f in diagnose(tasks, tasks=5) if f.status == "warning"]
    assert any("The train split has 15 classes (fewer than 20)" in message for message in messages)
    assert any("The val split has 6 classes (fewer than 10)" in message for message in messages)
    assert len(messages) == 2


def test_few_tasks_are_a_warning_with_the_width_to_expect():
    (warning,) = (
        f.message
        for f in diagnose(Collection(tasks={"train": 90, "val": 40, "test": 16}), tasks=5)
        if f.status == "warning"
    )
    assert "The test split has 16 tasks (fewer than 30)" in warning
    assert "about ± 0.5 standard deviations between tasks" in warning


# The learner


def test_memorized_class_numbers_are_found():
    """TRAPS T14: it answers well with the support shuffled, since numbers mean the same in every task."""
    tasks = FixedNumbers()
    status, message = found(tasks, build(Ignoring, tasks))["memorization"]
    assert status == "problem"
    assert "predicts labels without its support" in message
    assert "chance 20.0 % (30 training tasks)" in message


def test_a_learner_that_uses_its_support_is_no_memorizer_even_there():
    tasks = FixedNumbers()
    assert found(tasks, build(Toy, tasks))["memorization"][0] == "ok"


def test_a_learner_that_ignores_its_support_is_found():
    status, message = found(Clusters(), build(Ignoring, Clusters()))["memorization"]
    assert status == "problem"
    assert "does not use its support" in message


def test_the_gain_of_adapting_is_told_in_the_users_units():
    status, message = found(Slopes(), build(Line, Slopes()))["memorization"]
    assert status == "ok"
    assert "Adapting line to a task helps: squared error 1" in message  # 0.1 squared, times 10 squared, and a bit
    own = float(message.split("squared error ")[1].split(" ")[0])
    assert 0.9 < own < 2


@pytest.mark.parametrize(("cls", "alike"), [(OneForAll, False), (Line, True)])
def test_a_learner_or_tasks_for_which_adapting_does_not_pay_are_a_warning(cls, alike):
    tasks = Slopes(alike=alike)
    status, message = found(tasks, build(cls, tasks))["memorization"]
    assert status == "warning"
    assert "shows no gain" in message


def test_draws_of_one_unit_are_not_exchanged_with_each_other_and_count_once():
    tasks = Collection(tasks={"train": 1, "val": 40, "test": 40})
    assert found(tasks, build(Line, tasks))["memorization"][0] == "skipped"
    tasks = Collection(tasks={"train": 6, "val": 40, "test": 40})
    status, message = found(tasks, build(Line, tasks), tasks=12)["memorization"]  # half of the tasks on: the same unit
    assert status == "ok"
    assert "(6 training tasks)" in message


def test_a_learner_that_declares_to_use_no_support_is_not_accused():
    learner = build(Ignoring, Clusters())
    learner.uses_support = False
    assert found(Clusters(), learner)["memorization"][0] == "skipped"


def test_undeclared_use_of_other_queries_is_a_problem_and_declared_use_a_warning():
    """TRAPS T1."""
    learner = build(Whispering, Clusters())
    status, message = found(Clusters(), learner)["transduction"]
    assert status == "problem"
    assert "declares to predict each query by itself, but" in message
    learner.transductive = True
    status, message = found(Clusters(), learner)["transduction"]
    assert status == "warning"
    assert "as it declares" in message


def test_a_learner_made_for_other_tasks_is_told():
    learner = build(Line, Slopes())
    status, message = found(Clusters(), learner)["fit"]
    assert status == "problem"
    assert "made for regression" in message


def test_one_task_is_too_few():
    with pytest.raises(UserError, match="at least 2 tasks"):
        diagnose(Clusters(), tasks=1)


# Predictions that are not finite


@pytest.mark.parametrize(("cls", "tasks"), [(Failing, Clusters()), (FailingLine, Slopes())], ids=["accuracy", "error"])
def test_scores_of_tasks_that_diverge_are_the_worst(cls, tasks):
    learner = cls.build(tasks.spec, backbone="raw")
    own = torch.tensor([score_of(tasks, learner, index, tasks.task(index).support) for index in range(20)])
    evaluation = evaluate(learner, tasks, tasks=20)
    assert evaluation.diverged.any()
    expected = evaluation.scores if tasks.spec.classification else -evaluation.scores
    assert torch.allclose(own.double(), expected, rtol=1e-5)


@pytest.mark.parametrize(("limit", "status"), [(1.0, "ok"), (-100.0, "skipped")])
def test_transduction_says_on_how_many_tasks_nothing_was_to_be_seen(limit, status, monkeypatch):
    """The largest of some numbers and NaN may be 0."""
    tasks = Clusters()
    learner = Failing.build(tasks.spec, backbone="raw")
    lost = sum(bool(tasks.task(index).support.inputs[0, -1] > limit) for index in range(20))
    monkeypatch.setattr("evaluation.toys.LIMIT", limit)
    found = transduction(tasks, learner, 20)
    assert found.status == status
    assert f"{lost} of which diverged" in found.message or "no finite prediction on 20 tasks" in found.message


def test_a_large_network_sees_few_examples_more_than_once():
    """Of twenty tasks that are scored with many supports each; the findings are the same."""
    tasks = Clusters(inputs=Clusters().inputs[:, 30:]).with_sizes(way=3, shot=2, query_shot=4)
    learner = LEARNERS["protonet"].build(tasks.spec, backbone=lambda shape: Large(*shape))
    trained = replace(tasks.sizes, shot=1)
    learner.backbone.rows.clear()
    found = diagnose(tasks, learner, tasks=20, trained=trained)
    seen = sum(learner.backbone.rows)
    learner.features_only = False
    learner.backbone.rows.clear()
    plain = diagnose(tasks, learner, tasks=20, trained=trained)
    checks = ("memorization", "adaptation", "gap", "mismatch")
    one, other = ([each for each in findings if each.check in checks] for findings in (found, plain))
    assert one == other
    assert len(one) == len(checks)
    assert seen < 12 * EACH + 700, "all examples of two splits, and the tasks in which queries are predicted alone"
    assert sum(learner.backbone.rows) > 5 * seen
