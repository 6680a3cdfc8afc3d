"""Folds as one: of one learner, or of a race that another one won in each."""

import torch

from handful.evaluation.folds import RACED, joined
from handful.reports.report import Report
from handful.reports.verdict import Standing
from handful.workflows.cross_validation import winners
from results import compare, evaluation, noisy


def fold(learner, mean, **facts):
    rungs = [evaluation(key, noisy(0.5)) for key in ("pooled", "neighbors")]
    return compare(evaluation(learner, noisy(mean, seed=1), **facts), *rungs)


def test_folds_that_different_learners_won_are_called_after_none_of_them(tmp_path):
    """Half of the scores are of a method that learns from each task alone, and no merit of the first fold's winner."""
    folds = [fold("centroid", 0.6), fold("anil", 0.9, transductive=True)]
    found = joined(folds)
    own = found.learner.evaluation
    assert own.learner == RACED
    assert own.uses_other_tasks
    assert own.transductive
    assert "auto has an accuracy of 75.0" in Standing(found).lines()[0]
    reports = [Report("", "", [one], selection="", seed=0, plan="") for one in folds]
    assert winners(reports) == "the races were won by centroid (fold 1), anil (fold 2)"
    assert "auto" in Report("Folds", "shops", [found], selection="", seed=0, plan="").write(tmp_path).read_text()


def test_folds_of_one_learner_keep_its_name():
    own = joined([fold("centroid", 0.6), fold("centroid", 0.9)]).learner.evaluation
    assert (own.learner, own.uses_other_tasks, len(own.scores)) == ("centroid", False, 200)


def test_what_only_some_folds_have_is_in_no_whole():
    """Log-likelihoods, say, where one winner predicts distributions and another points."""
    folds = [fold("anil", 0.9, log_likelihoods=torch.zeros(100)), fold("centroid", 0.6)]
    for order in (folds, folds[::-1]):
        assert len(joined(order).learner.evaluation.log_likelihoods) == 0
