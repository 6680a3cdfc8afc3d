"""Experiments: what decides a run is in its configuration, and what a run says of itself is so."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import own_data
from handful.engine.plan import Plan
from handful.errors import ArtifactError, UserError
from handful.evaluation.ladder import Ladder
from handful.evaluation.scoring import evaluate as score
from handful.events import CheckpointEvent, DoneEvent, PlanEvent, StepEvent
from handful.models.meta_model import MetaModel
from handful.reports.report import load, load_scores
from handful.storage import write_json
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.opening import open_tasks
from handful.training.checkpoint import PretrainingCheckpoints
from handful.training.run import Run
from handful.workflows.compare import compare
from handful.workflows.diagnose import checkup
from handful.workflows.evaluate import describe, evaluate
from handful.workflows.experiment import Experiment, Source, comparing, opened_again, validating, with_queries
from handful.workflows.train import train
from noted import noted

TINY = {"steps": 4, "meta_batch_size": 2, "validation_tasks": 5}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("handful.evaluation.ladder.CHOOSING_TASKS", 2)
    monkeypatch.setattr("handful.evaluation.costly.CHOOSING_TASKS", 1)
    monkeypatch.setattr("handful.workflows.evaluate.CURVE_TASKS", 2)
    monkeypatch.setattr("handful.workflows.evaluate.CURVE_SHOTS", (1, 2))


@pytest.fixture
def species(tmp_path) -> Experiment:
    source = Source(str(own_data.species(tmp_path / "species.csv")), label="kind")
    sizes = {"way": 2, "shot": 2, "query_shot": 3}
    return Experiment(source, "protonet", backbone_options={"hidden": [8]}, settings=TINY, **sizes)


def test_an_experiment_comes_back_from_its_configuration():
    original = Experiment(
        Source("x.csv", label="a", drop=("b", "c"), seed=3),
        learner="maml",
        options={"inner_lr": 0.1},
        way=5,
        shot=(1, 5),
        settings={"steps": 7},
        seed=4,
    )
    config = json.loads(json.dumps({"format": "handful run", "schema": 1} | original.config()))
    config["shot"] = tuple(config["shot"])
    assert Experiment.from_config(config) == original


def test_the_same_experiment_gives_the_same_files(species, tmp_path):
    """And the time that it took is not in them."""
    for name in ("a", "b"):
        train(species, tmp_path / name)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / "model" / file).read_bytes() == (tmp_path / "b" / "model" / file).read_bytes()


def test_another_seed_gives_other_weights(species, tmp_path):
    one = train(species, tmp_path / "a")
    other = train(replace(species, seed=1), tmp_path / "b")
    assert one.digest != other.digest


def test_the_model_s_facts_are_those_of_the_run(species, tmp_path):
    facts = train(species, tmp_path / "run").facts
    metrics = Run(tmp_path / "run").metrics()
    best = max((row for row in metrics if "val" in row), key=lambda row: row["val"])
    assert facts["tasks"] == Path(species.source.tasks).name, "and no path"
    assert facts["trained steps"] == 4
    assert facts["validation score"] == best["val"]
    assert facts["kept step"] == best["step"]
    assert facts["examples"] == 4 * 2 * (2 * 2 + 2 * 3)
    assert "each on the same 5 tasks of the val split" in facts["selection"]


def test_training_is_of_a_learner_that_is_named(species, tmp_path):
    with pytest.raises(UserError, match="No learner is named") as refused:
        train(replace(species, learner=None), tmp_path / "run")
    assert "{learner}" in refused.value.hint
    assert not (tmp_path / "run").exists()


def test_training_is_told_what_was_built_before_it_starts(species, tmp_path):
    heard = []

    def hear(event):
        assert (tmp_path / "run" / "config.json").exists()
        heard.append(event)

    model = train(species, tmp_path / "run", on_event=hear)
    plan, *steps, checkpoint, done = heard
    parameters = sum(parameter.numel() for parameter in model.learner.parameters())
    assert plan == PlanEvent(parameters, 2, 2, 2, model.pipeline.described(), None, str(Plan("vmap")), 4, 1)
    assert StepEvent("meta-training", 4, 4, Run(tmp_path / "run").metrics()[-1]["loss"]) in steps
    assert checkpoint == CheckpointEvent(4)
    assert isinstance(done, DoneEvent)


def test_the_kept_score_can_be_measured_again(species, tmp_path):
    """What was validated is what is saved: weights and statistics both."""
    model = train(species, tmp_path / "run")
    validation = validating(species.source.open(), 2, 2, 3)
    again = score(MetaModel.from_pretrained(tmp_path / "run").learner, validation, tasks=5)
    assert again.score.mean == pytest.approx(model.facts["validation score"], abs=1e-12)


def test_validation_has_no_more_classes_than_its_split(species, tmp_path):
    """12 classes are split 7, 2 and 3: a way of 3 is validated with 2."""
    tasks = species.source.open()
    assert validating(tasks, 3, 1, 3).sizes.way == 2
    assert validating(tasks, (2, 6), 1, 3).sizes.way == (2, 2)
    assert validating(tasks, 2, 1, 3).split_name == "val"
    with noted("chooses what is kept, uses 2-way tasks"):
        model = train(replace(species, way=3), tmp_path / "run")
    assert model.facts["selection"].endswith("of the val split, 2-way")
    report = evaluate(tmp_path / "run", settings=[(3, 1)], tasks=4, minutes=0)
    assert report.comparisons[0].learner.evaluation.way == 3


def test_a_validation_split_without_examples_is_refused_before_training(tmp_path):
    few = own_data.photos(tmp_path / "few", 4, count=5)
    sizes = {"way": 2, "shot": 1, "query_shot": 2}
    with noted("too few"), pytest.raises(UserError, match="each class needs 6 different"):
        train(Experiment(Source(str(few), image_size=16), "protonet", settings=TINY, **sizes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_of_a_few_classes_all_are_trained_on_and_the_report_says_that_nothing_was_held_out(tmp_path):
    """With the defaults of every command."""
    few = own_data.photos(tmp_path / "few", 3, count=8)
    with noted("3 classes, too few to hold some out for validation and test"):
        train(Experiment(Source(str(few), image_size=16), "protonet", settings=TINY), tmp_path / "run")
    report = evaluate(tmp_path / "run", tasks=4, minutes=0)
    assert report.tasks.startswith("3 classes of few, **all of them trained on: nothing was held out**")
    assert "With 1 example of each of 3 classes that were trained on" in report.verdict
    leakage = next(finding for finding in checkup(Source(str(tmp_path / "run"))) if finding["check"] == "leakage")
    assert leakage["status"] == "warning"
    assert "do not show how well new classes are learned" in leakage["message"]


@pytest.mark.slow
def test_other_data_to_test_on_are_told_as_such(tmp_path):
    few, other = own_data.photos(tmp_path / "few", 12, count=8), own_data.photos(tmp_path / "other", 4, count=8)
    source = Source(str(few), image_size=16, test=str(other))
    experiment = Experiment(source, "protonet", settings=TINY, way=2, query_shot=2)
    with noted("other contains an example of the training data"):
        train(experiment, tmp_path / "run")
        report = evaluate(tmp_path / "run", tasks=4, minutes=0)
    assert report.tasks.startswith("4 classes of other, **3 of them with names of classes trained on**")
    assert "new classes" in report.verdict


def test_a_generator_has_no_classes_to_run_out_of():
    assert validating(open_tasks("sine"), None, 3, None).sizes.shot == 3


@pytest.mark.slow
def test_where_there_is_no_data_equivalence_a_note_says_why(species, tmp_path):
    train(species, tmp_path / "one")
    assert evaluate(tmp_path / "one", tasks=4, minutes=0, equivalence_tasks=3).equivalence.tasks == 3
    train(replace(species, shot=(1, 2)), tmp_path / "varied")
    with noted("data equivalence is left out: shots vary"):
        report = evaluate(tmp_path / "varied", tasks=4, minutes=0, equivalence_tasks=3)
    assert report.equivalence is None


def test_the_data_of_a_run_are_not_opened_where_its_encoder_is_missing(species, tmp_path, monkeypatch):
    """Opening them would download it, and loading a model downloads nothing."""

    def missing():
        raise UserError("Fetch it.")

    contents = species.source.open().contents()
    monkeypatch.setattr(Source, "open", lambda self, **more: pytest.fail("opened"))
    model = SimpleNamespace(pipeline=SimpleNamespace(check_ready=missing))
    with pytest.raises(UserError, match="Fetch it"):
        opened_again(species, model, SimpleNamespace(path=tmp_path, contents=lambda: contents))


@pytest.mark.slow
def test_a_report_can_be_computed_again(species, tmp_path):
    train(species, tmp_path / "run")
    model = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "model").iterdir()}
    report = evaluate(tmp_path / "run", tasks=6, minutes=0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "model").iterdir()} == model
    report.write(tmp_path / "report")
    written, scores = load(tmp_path / "report"), load_scores(tmp_path / "report")
    assert written["settings"][0]["way"] == 2
    for row, each in zip(written["settings"][0]["rows"], scores["settings"][0]["rows"], strict=True):
        assert len(each["scores"]) == 6
        assert row["score"]["mean"] == pytest.approx(sum(each["scores"]) / 6)
    again = evaluate(tmp_path / "run", tasks=6, minutes=0)
    means = [[row.evaluation.score.mean for row in r.comparisons[0].rows] for r in (report, again)]
    assert means[0] == means[1]
    assert all(math.isfinite(mean) for mean in means[0])


def test_a_report_says_how_often_small_tasks_were_drawn(tmp_path):
    lines = [f"s{task},{row},{task + row}" for task in range(10) for row in range(4 if task % 2 else 30)]
    (tmp_path / "shops.csv").write_text("\n".join(["shop,size,sold", *lines]))
    tasks = open_tasks(tmp_path / "shops.csv", task="shop", target="sold").with_sizes(shot=3)
    said = describe(tasks.split("test"), tasks.contents(), tasks, Source("shops.csv"))
    assert said.startswith("2 tasks of shops.csv not used in training. Training: ")
    assert said.endswith(tasks.small_tasks())
    assert "of 6 training tasks have fewer than 18 usable rows" in tasks.small_tasks()
    small = tasks.with_sizes(shot=2, query_shot=2)
    said = describe(tasks.split("test"), tasks.contents(), small, Source("shops.csv"), "1 example in train")
    assert said.endswith("not used in training. New since the training: 1 example in train")


@pytest.mark.parametrize(
    ("classes", "way", "compared"),
    [(4, 5, 2), (4, 4, 2), (4, (4, 6), 2), (4, 3, 3), (4, (3, 6), (3, 4)), (3, None, 2), (2, 5, 2)],
)
def test_candidates_are_compared_on_tasks_of_different_classes(classes, way, compared):
    labels = torch.arange(20).repeat_interleave(20)
    splits = {"train": range(10), "val": range(10, 10 + classes), "test": range(10 + classes, 20)}
    tasks = LabeledPool(torch.rand(400, 2), labels, [str(one) for one in range(20)], splits=splits)
    sized = comparing(tasks, way, 1, 2)
    assert sized.sizes.way == compared
    assert sized.split_name == "val"
    assert len({sized.manifest(index).classes for index in range(40)}) > 1 or classes == 2


def test_a_way_of_training_for_tasks_that_have_their_own_is_named(tmp_path):
    tasks = open_tasks(own_data.shops(tmp_path / "shops.csv"), task="shop", target="sold")
    with pytest.raises(UserError, match=r"fixed by the data") as told:
        Experiment(Source("shops.csv"), train_way=5).training_tasks(tasks.split("train"))
    assert told.value.field == ("train_way",)


def test_tasks_that_are_not_drawn_from_classes_are_compared_as_they_are(tmp_path):
    tasks = open_tasks(own_data.shops(tmp_path / "shops.csv"), task="shop", target="sold")
    assert comparing(tasks, None, 4, None).sizes == validating(tasks, None, 4, None).sizes


def test_queries_are_as_many_as_small_classes_have(tmp_path):
    tasks = open_tasks(own_data.photos(tmp_path / "photos"), image_size=16)  # 6 images of each class
    asked = Experiment(Source("photos"), way=5)
    with noted("each task has 5 query examples"):
        assert with_queries(asked, tasks, None).query_shot == 5
    with pytest.raises(UserError, match="15 query examples"):
        with_queries(replace(asked, shot=10), tasks, None)
    given = replace(asked, query_shot=3)
    assert with_queries(given, tasks, None) == given, "what was asked for is refused later"
    assert with_queries(asked, tasks, replace(asked, query_shot=7)).query_shot == 7, "a resumed run keeps its number"


def test_a_named_learner_fits_its_queries_to_small_classes_too(tmp_path):
    photos = Source(str(own_data.photos(tmp_path / "photos")), image_size=16)  # 6 images of each class
    asked = Experiment(photos, "protonet", way=5, settings=TINY)
    with noted("each task has 5 query examples", "fewer classes than a task"):
        train(asked, tmp_path / "run")
    assert Run(tmp_path / "run").config()["query_shot"] == 5
    with noted("fewer classes than a task"):
        train(asked, tmp_path / "run", resume=True)


@pytest.mark.slow
def test_costly_rungs_are_left_out_on_demand(species, tmp_path):
    train(species, tmp_path / "run")
    without = evaluate(tmp_path / "run", tasks=3, minutes=0).comparisons[0].rows
    report = evaluate(tmp_path / "run", tasks=3)
    beside = report.comparisons[0].rows
    costly = {row.evaluation.learner: len(row.evaluation.scores) for row in beside}
    many_steps = {"baseline-plus-plus", "fine-tune-all", "fine-tune-head", "scratch"}
    assert {row.evaluation.learner for row in without} == set(costly) - many_steps
    assert set(costly.values()) == {3}
    assert report.left_out == {}


def test_tasks_that_the_model_cannot_do_are_refused_before_the_ladder(species, tmp_path):
    fixed = replace(species, learner="maml", options={"head": "slots", "inner_steps": 1})
    train(fixed, tmp_path / "run")
    heard = []
    with pytest.raises(UserError, match="2 classes only"):
        evaluate(tmp_path / "run", settings=[(2, 1), (3, 1)], tasks=3, on_event=heard.append)
    assert not heard


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"half_width": math.inf}, "half-width of an interval is a number above 0, got inf. Change half_width="),
        ({"half_width": math.nan}, "above 0, got nan"),
        ({"query_shot": 0}, "query-shot is at least 1"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(species, tmp_path, numbers, message):
    train(species, tmp_path / "run")
    with pytest.raises(UserError, match=message):
        evaluate(tmp_path / "run", tasks=3, **numbers)


def test_what_is_no_run_cannot_be_evaluated(species, tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        evaluate(tmp_path / "absent")
    model = train(species, tmp_path / "run")
    model.save_pretrained(tmp_path / "alone")
    with pytest.raises(ArtifactError, match="is not a run"):
        evaluate(tmp_path / "alone")


@pytest.mark.slow
def test_the_ladder_is_pre_trained_on_images_that_are_changed_as_those_of_the_learner(tmp_path, monkeypatch):
    """Else the verdict would favor a learner that was trained with --augment."""
    seen = []

    class Watching(Ladder):
        def __init__(self, learner, trained, **more):
            seen.append((trained.pool(), more["keeper"]))
            super().__init__(learner, None, **more)

    monkeypatch.setattr("handful.workflows.evaluate.Ladder", Watching)
    source = Source(str(own_data.photos(tmp_path / "photos")), image_size=16)
    sizes = {"way": 2, "shot": 1, "query_shot": 2, "train_way": 3}
    changed = Experiment(source, "protonet", augment=1.0, settings=TINY, backbone="mlp", **sizes)
    train(changed, tmp_path / "run")
    evaluate(tmp_path / "run", tasks=2, minutes=0)
    ((pool, keeper),) = seen
    assert isinstance(keeper, PretrainingCheckpoints), "else an interrupted pre-training is lost"
    plain = source.open().split("train").pool()
    expected = changed.training_tasks(source.open().split("train")).pool()
    drawn, same, other = (each.draw(torch.Generator().manual_seed(3), 8) for each in (pool, expected, plain))
    assert torch.equal(drawn.inputs, same.inputs)
    assert not torch.equal(drawn.inputs, other.inputs)


def changed_in(file, split, source):
    """Write the file with another number in one row of a class of a split."""
    (name, *_) = source.open().split_manifest()[split]
    lines = file.read_text().splitlines()
    row = next(number for number, line in enumerate(lines) if line.startswith(f'"{name}",'))
    file.write_text("\n".join([*lines[:row], lines[row] + "1", *lines[row + 1 :]]) + "\n")


@pytest.mark.parametrize(
    "split", ["test", *(pytest.param(split, marks=pytest.mark.slow) for split in ("train", "val"))]
)
def test_with_data_that_changed_since_the_training_nothing_goes_on(species, tmp_path, split):
    """Also where a row of the test split alone has other numbers."""
    train(species, tmp_path / "run")
    file = Path(species.source.tasks)
    text = file.read_text()
    changed_in(file, split, species.source)
    with pytest.raises(UserError, match=rf"has changed since the model was trained.*of the {split} split have changed"):
        evaluate(tmp_path / "run", tasks=4, minutes=0)
    with pytest.raises(UserError, match="has changed since"):
        checkup(Source(str(tmp_path / "run")))
    with pytest.raises(UserError, match=r"The data have changed since the run in .* was started"):
        train(species, tmp_path / "run", resume=True)
    file.write_text("\n".join([text.splitlines()[0], *text.splitlines()[:0:-1]]) + "\n")  # the order is no content
    evaluate(tmp_path / "run", tasks=4, minutes=0)
    file.write_text(text)
    train(species, tmp_path / "run", resume=True)


def test_data_that_grew_are_accepted_and_the_report_says_what_is_new(species, tmp_path):
    """Nobody moves: a class that was trained on never becomes a test class."""
    model = train(species, tmp_path / "run")
    before = Run(tmp_path / "run").contents()
    file = Path(species.source.tasks)
    rows = file.read_text().splitlines()
    more = [f"new{n},{line.split(',', 1)[1]}" for n in range(30) for line in rows[1:7]]
    file.write_text("\n".join([*rows, *more, rows[1] + "7"]) + "\n")
    report = evaluate(tmp_path / "run", tasks=4, minutes=0)
    assert "New since the training: " in report.tasks
    opened, new = opened_again(species, model, Run(tmp_path / "run"))
    assert "examples and " in new
    now = opened.contents().placed()
    assert {name: now[name] for name in before.placed()} == before.placed()
    assert len(now) == len(before.placed()) + 30
    assert opened.contents().pipeline == before.pipeline
    with noted("The data have grown since"):
        train(species, tmp_path / "run", resume=True)
    assert Run(tmp_path / "run").contents().placed() == now


@pytest.mark.slow
def test_a_run_and_its_data_may_be_moved(species, tmp_path):
    """Content decides, not paths; and each way out that a message names works."""
    train(species, tmp_path / "first")
    (tmp_path / "first").rename(tmp_path / "run")
    there = replace(species.source, tasks=str(Path(species.source.tasks).rename(tmp_path / "moved.csv")))
    with pytest.raises(UserError, match=r"are no longer at .*species.csv.*with tasks="):
        evaluate(tmp_path / "run", tasks=4, minutes=0)
    report = evaluate(tmp_path / "run", other=there, tasks=4, minutes=0)
    assert " not used in training" in report.tasks
    (tmp_path / "other.csv").write_text(Path(there.tasks).read_text().replace(".1", ".2"))
    other = replace(there, tasks=str(tmp_path / "other.csv"))
    with noted("training data are not used"):
        evaluate(tmp_path / "run", other=other, tasks=4, minutes=0)
    train(replace(species, source=there), tmp_path / "run", resume=True)
    evaluate(tmp_path / "run", tasks=4, minutes=0)
    with pytest.raises(UserError, match="The data have changed"):
        train(replace(species, source=other), tmp_path / "run", resume=True)


@pytest.mark.slow
def test_runs_compare_where_their_test_examples_are_the_same_wherever_they_are(species, tmp_path):
    copy = Path(species.source.tasks).with_name("copy.csv")
    copy.write_text(Path(species.source.tasks).read_text())
    source = replace(species.source, tasks=str(copy))

    def scored(name, experiment):
        train(experiment, tmp_path / name)
        evaluate(tmp_path / name, tasks=4, minutes=0).write(tmp_path / name / "report")
        return tmp_path / name

    runs = [scored("a", species), scored("b", replace(species, source=source, learner="r2d2"))]
    assert len(compare(runs)[0]["runs"]) == 2
    changed_in(copy, "test", source)
    with pytest.raises(UserError, match="scored on other test examples"):
        compare([runs[0], scored("c", replace(species, source=source, learner="r2d2"))])


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"source": {"tasks": "sine", "unit": "m"}}, {"schema": 2}])
def test_a_run_of_a_newer_version_says_so(species, tmp_path, change):
    """It may have an option that this version does not have, or another schema."""
    Run.open(tmp_path / "run", species.config())
    write_json(tmp_path / "run" / "config.json", Run(tmp_path / "run").config() | change)
    with pytest.raises(ArtifactError, match=r"run.*version of handful") as told:
        Experiment.from_config(Run(tmp_path / "run").config())
    assert told.value.code == "other-version"


def test_sizes_that_are_given_replace_those_of_the_run(species, tmp_path):
    """The test split has 3 classes; the run's own way may be more than it has."""
    with noted("2-way tasks", "The test split has fewer classes than a task: evaluate with a way of 3"):
        train(replace(species, way=4), tmp_path / "run")
    with pytest.raises(UserError, match=r"A 4-way task.*Lower way="):
        evaluate(tmp_path / "run", tasks=4, minutes=0)
    report = evaluate(tmp_path / "run", settings=[(2, None)], tasks=4, minutes=0)
    assert report.comparisons[0].learner.evaluation.way == 2
