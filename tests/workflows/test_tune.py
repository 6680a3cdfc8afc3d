"""The search for settings: what is searched, on what it is scored, and that an interrupted one goes on."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import own_data
from handful.cli.main import app
from handful.errors import ArtifactError, HandfulError, UserError
from handful.events import ValidationEvent
from handful.tasks.labeled_pool import LabeledPool
from handful.training.run import Run
from handful.workflows import tune as workflow
from handful.workflows.experiment import Experiment, Source
from handful.workflows.train import train
from handful.workflows.tune import FILE, SearchRange, Trial, Tuning, applied, space, tune
from noted import noted, nothing_noted


@pytest.fixture
def species(tmp_path) -> Experiment:
    source = Source(str(own_data.species(tmp_path / "species.csv")), label="kind")
    settings = {"steps": 40, "meta_batch_size": 2, "validation_tasks": 10, "validate_every": 2, "plan": "vmap"}
    sizes = {"way": 2, "shot": 2, "query_shot": 3}
    return Experiment(source, "protonet", backbone_options={"hidden": [8]}, settings=settings, **sizes)


def test_rate_decay_and_the_learners_own_options_are_searched():
    source = Source("x")
    given = {"outer_lr": 0.01, "weight_decay": 1e-3}
    assert space(Experiment(source, "protonet", settings=given), "classification") == {
        "outer_lr": SearchRange(0.01, 0.001, 0.1),
        "weight_decay": SearchRange(1e-3, 1e-5, 0.1),
        "temperature": SearchRange(10.0, 1.0, 100.0),
    }
    classes, found = (space(Experiment(source, learner="maml"), kind) for kind in ("classification", "regression"))
    assert classes["inner_lr"].start == 0.1 > found["inner_lr"].start == 0.01
    assert set(found) == {"outer_lr", "weight_decay", "inner_lr", "inner_steps"}
    assert found["inner_steps"] == SearchRange(5, 1, 10, whole=True)
    found = space(Experiment(source, learner="r2d2"), "regression")
    assert set(found) == {"outer_lr", "weight_decay", "regularization"}
    found = space(Experiment(source, "protonet", settings={"weight_decay": 0.0}), "classification")
    assert "weight_decay" not in found, "none was asked for"


def test_what_the_user_has_set_is_not_searched():
    found = space(Experiment(Source("x"), learner="maml", options={"inner_lr": 0.3}), "regression")
    assert set(found) == {"outer_lr", "weight_decay", "inner_steps"}


def test_settings_are_applied_where_they_belong():
    there = applied(Experiment(Source("x"), settings={"steps": 3}), {"outer_lr": 0.1, "temperature": 2.0})
    assert (there.settings, there.options) == ({"steps": 3, "outer_lr": 0.1}, {"temperature": 2.0})
    assert applied(Experiment(Source("x")), {"weight_decay": 0.1}).settings == {"weight_decay": 0.1}


def test_the_best_is_the_best_in_its_direction():
    experiment = Experiment(Source("x"), "protonet")
    trials = [
        Trial({"outer_lr": 1.0}, "complete", 0.3, []),
        Trial({"outer_lr": 2.0}, "complete", 0.2, []),
        Trial({"outer_lr": 3.0}, "pruned", None, [(1, 9.0)]),
        Trial({"outer_lr": 4.0}, "failed", None, []),
    ]
    assert Tuning(experiment, None, True, trials, {}).best.settings["outer_lr"] == 1.0
    assert Tuning(experiment, None, False, trials, {}).best.settings["outer_lr"] == 2.0
    lost = replace(trials[1], diverged=1)
    assert Tuning(experiment, None, False, [lost, trials[0]], {}).best.settings["outer_lr"] == 1.0, (
        "it diverged less often"
    )
    assert Tuning(experiment, None, True, [replace(trials[0], diverged=1), lost], {}).best.settings["outer_lr"] == 1.0
    with pytest.raises(HandfulError, match="every training diverged"):
        Tuning(experiment, None, True, trials[2:], {}).best  # noqa: B018


def test_without_optuna_the_message_names_the_extra(species, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install '\.\[tune\]'"):
        tune(species, tmp_path / "run", 2)


class TestSearch:
    @pytest.fixture(autouse=True)
    def _optuna(self):
        pytest.importorskip("optuna", reason="the extra [tune] is not installed")

    def test_trials_are_scored_on_validation_tasks_alone(self, species, tmp_path, monkeypatch):
        drawn, draw = set(), LabeledPool.task
        monkeypatch.setattr(LabeledPool, "task", lambda self, index: drawn.add(self.split_name) or draw(self, index))
        found = tune(species, tmp_path / "run", 3)
        assert drawn == {"train", "val"}
        given = {"outer_lr": 1e-3, "weight_decay": 1e-4, "temperature": 10.0}
        assert found.trials[0].settings == pytest.approx(given), "the first has the given settings"
        assert found.trials[0].scores[-1][0] == 10, "a fourth of the steps"
        assert len({trial.settings["outer_lr"] for trial in found.trials}) == 3
        best = max(trial.score for trial in found.ranked)
        assert best == max(score for trial in found.trials if trial.state == "complete" for _, score in trial.scores)

    @pytest.mark.slow
    def test_an_interrupted_search_ends_as_if_it_had_not_been(self, species, tmp_path, monkeypatch):
        whole = tune(species, tmp_path / "a", 6)
        advance, steps = workflow.meta_train, []

        def stop(*arguments, **options):
            steps.append(1)
            if len(steps) == 4:
                raise KeyboardInterrupt
            return advance(*arguments, **options)

        monkeypatch.setattr(workflow, "meta_train", stop)
        with pytest.raises(KeyboardInterrupt):
            tune(species, tmp_path / "b", 6)
        assert len(json.loads((tmp_path / "b" / FILE).read_text())["trials"]) == 3
        again = tune(species, tmp_path / "b", 6, resume=True)
        assert again.trials == whole.trials
        assert again.importance == whole.importance
        assert len(steps) == 4 + 3

    def test_what_mattered_is_a_share(self, species, tmp_path, monkeypatch):
        """A made-up score that depends on the temperature alone."""

        def scored(experiment, distribution, asked, on_event):
            return Trial(asked.params, "complete", -abs(asked.params["temperature"] - 5.0), [])

        monkeypatch.setattr(workflow, "_tried", scored)
        found = tune(species, tmp_path / "run", 25)
        assert found.importance["temperature"] > 0.9
        assert sum(found.importance.values()) == pytest.approx(1)
        assert found.ranked[0].settings["temperature"] == pytest.approx(5, rel=0.3)

    def test_a_hopeless_trial_is_pruned(self, species, tmp_path, monkeypatch):
        def train_to(learner, *arguments, on_event, **settings):
            good = settings["outer_lr"] == 1e-3 or len(seen) < 6
            seen.append(0)
            for step in range(1, 11):
                seen[-1] = step
                on_event(ValidationEvent(step, 0.9 if good else 0.1, "accuracy"))
            return type("Trained", (), {"best_score": 0.9, "best_diverged": 0})

        seen: list[int] = []
        monkeypatch.setattr(workflow, "meta_train", train_to)
        found = tune(species, tmp_path / "run", 7)
        assert [trial.state for trial in found.trials] == ["complete"] * 6 + ["pruned"]
        assert seen[-1] == 1
        assert found.trials[-1].score is None

    def test_a_trial_that_diverges_is_no_end_of_the_search(self, species, tmp_path, monkeypatch):
        def diverge(*arguments, **settings):
            raise HandfulError("The meta-loss became nan.")

        monkeypatch.setattr(workflow, "meta_train", diverge)
        found = tune(species, tmp_path / "run", 2)
        assert [trial.state for trial in found.trials] == ["failed"] * 2

    def test_a_damaged_file_ends_the_search_as_it_would_each_trial(self, species, tmp_path, monkeypatch):
        def damaged(*arguments, **settings):
            raise ArtifactError("The encoder has its weights in a pickle.")

        monkeypatch.setattr(workflow, "meta_train", damaged)
        with pytest.raises(ArtifactError, match="pickle"):
            tune(species, tmp_path / "run", 2)

    def test_a_folder_in_use_is_left_alone(self, species, tmp_path):
        train(species, tmp_path / "run")
        with pytest.raises(UserError, match="already holds"):
            tune(species, tmp_path / "run", 1)
        with pytest.raises(UserError, match="was not tuned"):
            tune(species, tmp_path / "run", 1, resume=True)
        tune(species, tmp_path / "run", 1, force=True)
        assert not (tmp_path / "run" / "config.json").exists()
        other = Experiment(species.source, learner="r2d2", settings=species.settings)
        with pytest.raises(UserError, match=r"The search in .* other settings .*learner: was protonet, now r2d2"):
            tune(other, tmp_path / "run", 1, resume=True)
        file = Path(species.source.tasks)
        text = file.read_text()
        file.write_text(text.replace(".1", ".2"))
        with pytest.raises(UserError, match=r"The data have changed since the search in .*run was started: examples"):
            tune(species, tmp_path / "run", 1, resume=True)
        file.write_text(text)
        (tmp_path / "run" / FILE).write_text("{}")
        with pytest.raises(ArtifactError, match="not a search"):
            tune(species, tmp_path / "run", 1, resume=True)

    def test_a_search_goes_on_with_data_that_moved_and_grew(self, species, tmp_path):
        """No name moves to another split: validation tasks are those on which trials were scored before."""
        run, file = tmp_path / "run", Path(species.source.tasks)
        first = tune(species, run, 1)
        moved = file.rename(tmp_path / "elsewhere.csv")
        there = replace(species, source=replace(species.source, tasks=str(moved)))
        with nothing_noted():
            assert tune(there, run, 2, resume=True).trials[0] == first.trials[0]
        rows = moved.read_text().splitlines()
        more = [f"new{n},{line.split(',', 1)[1]}" for n in range(12) for line in rows[1:7]]
        moved.write_text("\n".join([*rows, *more]) + "\n")
        with noted(
            r"data have grown since the search in .*run was started \(.*examples.*\): training continues with them"
        ):
            again = tune(there, run, 3, resume=True)
        before, now = (tuning.tasks.contents().placed() for tuning in (first, again))
        assert now.items() > before.items()
        assert again.trials[0] == first.trials[0]
        with nothing_noted():
            train(again.best, run, tasks=again.tasks)
        assert Run(run).contents() == again.tasks.contents()

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"settings": {"weight_decay": "abc"}}, "weight_decay is a finite number, not 'abc'"),
            ({"settings": {"steps": 0}}, "steps is at least 1"),
            ({"options": {"temprature": 1.0}}, "Did you mean 'temperature'"),
            ({"source": Source("no/such.csv", label="kind")}, "does not exist"),
            ({"way": 200}, "Lower way="),
        ],
    )
    def test_a_run_is_not_deleted_for_a_search_that_cannot_begin(self, species, tmp_path, wrong, said):
        run = tmp_path / "run"
        run.mkdir()
        (run / "config.json").write_text('{"format": "handful run", "schema": 1}')
        (run / FILE).write_text("{}")
        with pytest.raises(UserError, match=said):
            tune(replace(species, **wrong), run, 1, force=True)
        assert {path.name for path in run.iterdir()} == {"config.json", FILE}

    def test_a_broken_search_can_be_started_over(self, species, tmp_path):
        run = tmp_path / "run"
        run.mkdir()
        (run / FILE).write_text("{broken")
        with pytest.raises(ArtifactError, match="cannot be read as JSON"):
            tune(species, run, 1, resume=True)
        assert len(tune(species, run, 1, force=True).trials) == 1

    def test_the_command_searches_and_then_trains_with_the_best(self, species, tmp_path):
        run = tmp_path / "run"
        words = f"train --tasks {species.source.tasks} --label kind --way 2 --shot 2 --query-shot 3 --steps 16"
        line = [
            *words.split(),
            "--learner",
            "protonet",
            "--set",
            "training.validation_tasks=5",
            "--tune",
            "5",
            "-o",
            str(run),
        ]
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 0, result.output
        assert "The best of 5 trials" in result.stdout
        assert max(map(len, result.stdout.split("Trained")[0].splitlines())) <= 80
        saved = json.loads((run / FILE).read_text())
        best = max((t for t in saved["trials"] if t["state"] == "complete"), key=lambda t: t["score"])["settings"]
        config = json.loads((run / "config.json").read_text())
        assert config["settings"]["outer_lr"] == best["outer_lr"]
        assert config["options"]["temperature"] == best["temperature"]
        again = CliRunner().invoke(app, [*line, "--resume"])
        assert again.exit_code == 0, again.output
        assert json.loads((run / FILE).read_text()) == saved


def test_a_folder_with_something_else_in_it_is_refused_before_the_search(species, tmp_path):
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "a.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and is not a run"):
        tune(species, folder, 1)
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
