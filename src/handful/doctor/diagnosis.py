"""The doctor: what may be wrong with tasks or with a learner, in plain words.

It knows the two contracts only, and draws tasks and scores them as anybody could.
"""

import torch

from handful.doctor.diversity import diversity
from handful.doctor.finding import Finding as Finding
from handful.doctor.generalization import adaptation, gap, mismatch
from handful.doctor.learner_checks import exchange, memorization, transduction
from handful.doctor.near_duplicates import near_duplicates
from handful.doctor.task_checks import leakage, order, overlap, sizes
from handful.engine.evaluation_copy import evaluation_copy
from handful.errors import UserError
from handful.evaluation.scoring import check_tasks
from handful.functional.own_settings import own_settings
from handful.learners.learner import Learner
from handful.tasks.distribution import SizeRanges, Split, TaskDistribution

OF_LEARNERS = ("memorization", "transduction", "adaptation", "gap")


@own_settings()
def diagnose(
    distribution: TaskDistribution,
    learner: Learner | None = None,
    *,
    tasks: int = 50,
    trained: SizeRanges | None = None,
) -> list[Finding]:
    """Look for faults in the tasks of all splits, and, given one, in a learner on training and validation tasks.

    tasks: how many to draw for each check. trained: the sizes of tasks that the learner was trained on, where known.
    The learner is looked at on training tasks, which is where it could have memorized anything, and on validation tasks
    where new ones are needed, so that no test task is used up. It is not changed. Raises `UserError` for fewer than 2.
    """
    if tasks < 2:
        raise UserError(f"A diagnosis needs at least 2 tasks, got {tasks}.")
    splits, findings = sizes(distribution)
    findings += [overlap(splits, tasks), leakage(splits, tasks), near_duplicates(splits, tasks)]
    findings += order(distribution)
    if "train" in splits:
        findings.append(diversity(splits["train"], tasks))
    if learner is None:
        return findings
    if "train" not in splits:
        reason = "No training task of this size can be drawn."
        return [*findings, *(Finding(check, "skipped", reason) for check in OF_LEARNERS)]
    try:
        check_tasks(learner, splits["train"])
    except UserError as error:
        return [*findings, Finding("fit", "problem", error.message, error.hint)]
    with torch.no_grad():
        return [*findings, *_of_learner(splits, evaluation_copy(learner), tasks, trained)]


def _of_learner(
    splits: dict[Split, TaskDistribution], learner: Learner, tasks: int, trained: SizeRanges | None
) -> list[Finding]:
    train, classification = splits["train"], splits["train"].spec.classification
    of_train = exchange(train, learner, tasks)
    of_novel = exchange(splits["val"], learner, tasks) if "val" in splits else None
    findings = [
        memorization(train, learner, tasks, of_train, of_novel),
        transduction(train, learner),
        adaptation(of_novel, learner, classification=classification),
    ]
    if of_train is None or of_novel is None:
        findings.append(Finding("gap", "skipped", "There are fewer than two training or validation tasks to score."))
    else:
        units = of_train.units, of_novel.units
        findings.append(gap(of_train.own, of_novel.own, units, learner.key, classification=classification))
    if trained is not None and "val" in splits:
        findings.append(mismatch(splits["val"], learner, trained, tasks))
    return findings
