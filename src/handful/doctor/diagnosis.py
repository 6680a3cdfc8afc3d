"""The doctor: faults of tasks or of a learner, in plain words.

It uses only the contracts of learners and task distributions.
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
from handful.evaluation.scoring import check_tasks, on_features
from handful.functional.own_settings import own_settings
from handful.learners.learner import Learner
from handful.tasks.distribution import SizeRanges, TaskDistribution

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

    tasks: how many to draw for each check.
    trained: the sizes of tasks that the learner was trained on, if known. The learner, which is not changed, is checked
        on training tasks, which it may have memorized, and on validation tasks where new ones are needed, so that no
        test task is used up.

    Raises `UserError` for fewer than 2.
    """
    if tasks < 2:
        raise UserError(f"A diagnosis needs at least 2 tasks, got {tasks}.")
    splits, findings = sizes(distribution)
    findings += [overlap(splits, tasks), leakage(splits, tasks), near_duplicates(splits, tasks)]
    findings += order(distribution)
    train = seen = splits.get("train")
    head = misfit = None
    if learner is not None and train is not None:
        try:
            check_tasks(learner, train)
        except UserError as error:
            misfit = Finding("fit", "problem", error.message, error.hint)
        else:
            with torch.no_grad():
                head, seen = on_features(evaluation_copy(learner), train)
    if seen is not None:
        findings.append(diversity(seen, tasks))
    if learner is None:
        return findings
    if train is None or seen is None:
        reason = "No training task of this size can be drawn."
        return [*findings, *(Finding(check, "skipped", reason) for check in OF_LEARNERS)]
    if misfit is not None or head is None:
        return [*findings, *filter(None, [misfit])]
    with torch.no_grad():
        learner = evaluation_copy(learner)
        novel = on_features(learner, splits["val"])[1] if "val" in splits else None
        return [*findings, *_of_learner(seen, novel, head, transduction(train, learner), tasks, trained)]


def _of_learner(
    train: TaskDistribution,
    novel: TaskDistribution | None,
    learner: Learner,
    by_itself: Finding,
    tasks: int,
    trained: SizeRanges | None,
) -> list[Finding]:
    """Findings about a learner, among them whether it predicts each query by itself."""
    classification = train.spec.classification
    of_train = exchange(train, learner, tasks)
    of_novel = exchange(novel, learner, tasks) if novel else None
    findings = [
        memorization(train, learner, tasks, of_train, of_novel),
        by_itself,
        adaptation(of_novel, learner, classification=classification),
    ]
    if of_train is None or of_novel is None:
        findings.append(Finding("gap", "skipped", "Fewer than two training or validation tasks can be scored."))
    else:
        units = of_train.units, of_novel.units
        findings.append(gap(of_train.own, of_novel.own, units, learner.key, classification=classification))
    if trained is not None and novel:
        findings.append(mismatch(novel, learner, trained, tasks))
    return findings
