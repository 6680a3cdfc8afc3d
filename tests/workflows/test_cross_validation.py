"""Cross-validation: each class or task is scored once, by a learner that was trained on others."""

from collections import Counter
from dataclasses import replace

import pytest

import own_data
from handful.errors import UserError
from handful.events import NoteEvent, StoppedError
from handful.reports.report import load_scores
from handful.tasks.splits import SPLITS
from handful.training.run import Run
from handful.workflows.cross_validation import cross_validate, fold_contents
from handful.workflows.experiment import Experiment, Source
from handful.workflows.race_record import RaceRecord
from handful.workflows.train import train
from noted import noted

TINY = {"steps": 2, "meta_batch_size": 2, "validation_tasks": 2}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("handful.evaluation.ladder.CHOOSING_TASKS", 2)


def of_species(path, **more) -> Experiment:
    source = Source(str(own_data.species(path / "species.csv")), label="kind")
    return Experiment(source, "protonet", backbone_options={"hidden": [8]}, settings=TINY, **more)


def of_shops(path, **columns) -> Experiment:
    return Experiment(
        Source(str(own_data.shops(path / "shops.csv")), task="shop", **columns),
        learner="anil",
        backbone_options={"hidden": [8]},
        settings=TINY,
    )


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_each_class_is_tested_in_one_fold_and_never_trained_on_there(tmp_path, folds):
    experiment = of_species(tmp_path)
    divided = fold_contents(experiment.source.open(), folds, experiment)
    assert Counter(name for fold in divided for name in fold.splits["test"]) == {f"k{n:02}": 1 for n in range(12)}
    for fold in divided:
        opened = experiment.source.open(earlier=fold).split_manifest()
        assert {*opened["train"], *opened["val"], *opened["test"]} == {f"k{n:02}" for n in range(12)}
        assert sorted(opened["test"]) == sorted(fold.splits["test"])
        assert not {*opened["train"], *opened["val"]} & {*opened["test"]}


def test_a_fold_that_leaves_few_classes_sets_examples_aside_for_validation(tmp_path):
    experiment = Experiment(Source(str(own_data.photos(tmp_path / "few", 4, count=10)), image_size=16))
    with noted("4 classes, too few to hold some out"):
        whole = experiment.source.open()
    for fold in fold_contents(whole, 2, experiment):
        tasks = experiment.source.open(earlier=fold)
        names = tasks.split_manifest()
        assert tasks.aside == ("val",)
        assert names["train"] == names["val"]
        rows = [set(tasks.split(on).manifest(0).support) for on in SPLITS]
        assert not rows[0] & rows[1]


def test_data_in_parts_are_divided_in_folds_all_the_same(tmp_path):
    """And in none without a fifth part of all classes: scores of the parts that they bring would be of one training."""
    photos = own_data.photos(tmp_path / "all", 12)
    for number, folder in enumerate(sorted(photos.iterdir())):
        part = tmp_path / "photos" / ("train" if number < 8 else "val" if number < 10 else "test")
        part.mkdir(parents=True, exist_ok=True)
        folder.rename(part / folder.name)
    experiment = Experiment(Source(str(tmp_path / "photos"), image_size=16))
    for fold in fold_contents(experiment.source.open(), 4, experiment):
        assert {*experiment.source.open(earlier=fold).split_manifest()["test"]} == {*fold.splits["test"]}


@pytest.mark.parametrize(
    "wrong", [{"tasks": 0}, {"half_width": 0}, {"metric": "acuracy"}, {"settings": [(9, 1)]}, {"query_shot": 99}]
)
def test_what_is_wrong_is_told_before_the_first_training(tmp_path, wrong):
    train(of_species(tmp_path, way=2, query_shot=3), tmp_path / "run")
    with pytest.raises(UserError):
        cross_validate(tmp_path / "run", 3, tmp_path / "folds", **wrong)
    assert not (tmp_path / "folds").exists()


def test_the_time_of_a_fold_is_that_of_the_whole_race(tmp_path):
    """Not that of its winner's own steps."""
    run = tmp_path / "run"
    train(of_species(tmp_path, way=2, query_shot=3), run)
    RaceRecord(run / "race.json", 10.0, spent=600.0).end({"winner": "protonet"})

    def hear(event):
        raise StoppedError(event.message)

    with pytest.raises(StoppedError, match=r"each as long as the run's own \(10 min"):
        cross_validate(run, 3, tmp_path / "folds", on_event=hear)


def test_weights_that_were_trained_on_the_data_make_no_folds(tmp_path):
    train(of_species(tmp_path), tmp_path / "first")
    train(of_species(tmp_path, warm_start=str(tmp_path / "first")), tmp_path / "run")
    with pytest.raises(UserError, match="so no fold is new to them"):
        cross_validate(tmp_path / "run", 3, tmp_path / "folds")


@pytest.mark.slow
def test_the_scores_of_all_folds_are_one_report(tmp_path):
    run = tmp_path / "run"
    train(of_species(tmp_path, way=2, query_shot=3), run)
    heard = []
    report = cross_validate(run, 3, tmp_path / "folds", tasks=10, minutes=0, on_event=heard.append)
    own = report.comparisons[0].learner.evaluation
    assert (len(own.scores), own.way) == (12, 2), "as many of each fold, 10 at least"
    assert len({frozenset(classes) for classes in own.classes}) > 3
    assert "12 classes of species.csv in 3 folds: each class is scored by a learner" in report.tasks
    assert "new classes" in report.verdict
    assert "3 trainings, each as long as the run's own" in next(e.message for e in heard if isinstance(e, NoteEvent))
    tested = [Run(tmp_path / "folds" / f"fold-{number}-of-3").contents().splits["test"] for number in (1, 2, 3)]
    assert sum(map(len, tested)) == len({name for names in tested for name in names}) == 12
    report.write(tmp_path / "folds")
    rows = load_scores(tmp_path / "folds" / "scores.json")["settings"][0]["rows"]
    assert {len(row["scores"]) for row in rows} == {12}


@pytest.mark.parametrize("columns", [{"target": "sold"}, pytest.param({"label": "good"}, marks=pytest.mark.slow)])
def test_tasks_are_divided_in_folds_and_an_interrupted_one_goes_on(tmp_path, columns):
    run, folder = tmp_path / "run", tmp_path / "folds"
    train(of_shops(tmp_path, **columns), run)
    first = cross_validate(run, 2, folder, tasks=16, minutes=0)
    own = first.comparisons[0].learner.evaluation
    assert len(set(own.units.tolist())) == 15, "each task is a unit of its own"
    kept = [(folder / f"fold-{number}-of-2" / "model" / "model.safetensors").read_bytes() for number in (1, 2)]
    again = cross_validate(run, 2, folder, tasks=16, minutes=0)
    assert again.comparisons[0].learner.evaluation.scores.equal(own.scores)
    assert kept == [(folder / f"fold-{number}-of-2" / "model" / "model.safetensors").read_bytes() for number in (1, 2)]


def test_what_cannot_be_divided_in_folds(tmp_path):
    experiment = of_species(tmp_path)
    tasks = experiment.source.open()
    for folds in (1, 7, 0):
        with pytest.raises(UserError, match=f"12 classes allow 2 to 6 folds, not {folds}"):
            fold_contents(tasks, folds, experiment)
    for source in (replace(experiment.source, test="other.csv"), replace(experiment.source, split_by="x")):
        with pytest.raises(UserError, match="fold"):
            fold_contents(tasks, 2, replace(experiment, source=source))
    sine = Experiment(Source("sine"))
    with pytest.raises(UserError, match="sine has a fixed test split"):
        fold_contents(sine.source.open(), 2, sine)
