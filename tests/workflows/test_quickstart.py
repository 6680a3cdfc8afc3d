"""The quickstart, from nothing to predictions, on a small scale."""

import json
from dataclasses import replace

import pytest

from handful.events import StepEvent
from handful.models.adapted_task import AdaptedTask
from handful.models.meta_model import MetaModel
from handful.training.run import Run
from handful.workflows import quickstart
from handful.workflows.encoding import encoded_inputs

PICTURES = {"ladder.png", "shots.png", "reliability.png"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    with pytest.MonkeyPatch.context() as patch:
        small = replace(quickstart.EXPERIMENT, backbone_options={"widths": [4, 4, 4, 4]}, settings={"minutes": 0.02})
        patch.setattr(quickstart, "EXPERIMENT", small)
        patch.setattr(quickstart, "TASKS", 3)
        patch.setattr("handful.evaluation.ladder.CHOOSING_TASKS", 1)
        patch.setattr("handful.evaluation.costly.CHOOSING_TASKS", 1)
        patch.setattr("handful.workflows.evaluate.CURVE_TASKS", 1)
        patch.setattr("handful.workflows.evaluate.CURVE_SHOTS", (1,))
        heard = []
        report, new = quickstart.quickstart(folder, on_event=heard.append)
        yield folder, report, new, [(event.work, event.done) for event in heard if isinstance(event, StepEvent)]


@pytest.mark.slow
def test_it_reports_both_settings_with_the_ladder(made):
    folder, report, _, steps = made
    kept = MetaModel.from_pretrained(folder).learner.key  # by the time that the machine had
    written = json.loads((folder / "report.json").read_text())
    assert written["verdict"] == report.verdict
    assert [(setting["way"], setting["shot"]) for setting in written["settings"]] == [(5, 1), (20, 1)]
    for setting in written["settings"]:
        learners = [row["learner"] for row in setting["rows"]]
        assert learners[0] == kept
        assert {"centroid", "dummy", "fine-tune-all", "scratch", "transfer"} <= set(learners)
        assert {row["score"]["tasks"] for row in setting["rows"]} == {3}
    assert {"pre-training pretrained", kept, "transfer"} <= {work for work, _ in steps}


@pytest.mark.slow
def test_the_page_shows_its_pictures(made):
    folder, *_ = made
    page = (folder / "report.md").read_text()
    assert quickstart.NOTE in page
    for name in PICTURES:
        assert (folder / name).stat().st_size > 1000
        assert f"({name})" in page
    assert (folder / "new-task" / "task.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_new_task_is_files_that_can_be_tried_again(made):
    folder, _, new, *_ = made
    assert sorted(path.is_dir() for path in new.examples.iterdir()) == [True] * 5
    assert sum(1 for _ in new.examples.rglob("*.png")) == 15
    assert sum(1 for _ in new.inputs.glob("*.png")) == new.count == 20
    assert 0 <= new.right <= new.count
    model = MetaModel.from_pretrained(folder)
    inputs, files = encoded_inputs(model.pipeline, new.inputs)
    task = AdaptedTask.load(new.task)
    predicted = [task.labels[number] for number in model.predict(task, inputs).logits.argmax(-1).tolist()]
    truth = [file.removesuffix(".png")[3:] for file in files]
    assert sum(a == b for a, b in zip(predicted, truth, strict=True)) == new.right
    assert set(truth) == {path.name for path in new.examples.iterdir()}


@pytest.mark.slow
def test_the_files_look_as_the_task_did(made):
    """Written as dark ink on paper and read back, a letter is what the learner would have been given."""
    from handful.tasks.glyphs import Glyphs

    folder, _, new, *_ = made
    drawn = Glyphs(seed=0).split("test").with_sizes(way=5, shot=3, query_shot=4).task(quickstart.NEW_TASK)
    pipeline = MetaModel.from_pretrained(folder).pipeline
    inputs, _ = encoded_inputs(pipeline, new.inputs)
    assert inputs.shape == drawn.query.inputs.shape
    assert (inputs - drawn.query.inputs).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("report", "seed", "expected"), [(True, 0, "force"), (False, 0, "resume"), (False, 1, "force")]
)
def test_an_unfinished_one_is_continued_and_any_other_made_anew(report, seed, expected, tmp_path, monkeypatch):
    Run.open(tmp_path / "run", quickstart.EXPERIMENT.config())
    (tmp_path / "run" / "model").mkdir()
    (tmp_path / "run" / "model" / "model.safetensors").write_text("")
    if report:
        (tmp_path / "run" / "report.json").write_text("{}")

    class AskedError(Exception):
        pass

    def auto(experiment, path, *, resume, force, on_event, stop):
        raise AskedError("force" if force else "resume" if resume else "new")

    monkeypatch.setattr(quickstart, "auto", auto)
    with pytest.raises(AskedError, match=expected):
        quickstart.quickstart(tmp_path / "run", seed=seed)
