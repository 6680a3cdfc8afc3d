"""Warm starts: whose weights training begins with, and where they do not fit."""

from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

import own_data
from handful.cli.main import app
from handful.errors import ArtifactError, UserError
from handful.models.meta_model import MetaModel
from handful.training.run import Run
from handful.workflows.experiment import Experiment, Source
from handful.workflows.train import train
from noted import noted

SETTINGS = {"steps": 2, "meta_batch_size": 2, "validation_tasks": 2, "plan": "vmap"}


@pytest.fixture
def species(tmp_path) -> Experiment:
    source = Source(str(own_data.species(tmp_path / "species.csv")), label="kind")
    sizes = {"way": 2, "shot": 2, "query_shot": 3}
    return Experiment(source, "protonet", backbone="mlp", backbone_options={"hidden": [4]}, settings=SETTINGS, **sizes)


@pytest.fixture
def first(species, tmp_path) -> str:
    train(species, tmp_path / "first")
    return str(tmp_path / "first")


def test_training_begins_with_the_weights_of_the_other_run(species, first, tmp_path):
    tasks = species.source.open()
    warm = replace(species, warm_start=first)
    saved = MetaModel.from_pretrained(first)
    built = warm.build(tasks).state_dict()
    assert built
    assert all(torch.equal(built[name], tensor) for name, tensor in saved.learner.state_dict().items())
    cold = species.build(tasks).state_dict()
    assert any(not torch.equal(built[name], cold[name]) for name in built)

    model = train(warm, tmp_path / "second")
    config = Run(tmp_path / "second").config()
    assert (config["warm_start"], config["start"], model.facts["start"]) == (first, saved.digest, saved.digest)
    assert Experiment.from_config(config) == replace(warm, learner="protonet"), "with the learner that was taken"
    train(warm, tmp_path / "second", resume=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"backbone_options": {"hidden": [5]}}, r"is of shape \(4, 3\) there and of shape \(5, 3\) here"),
        ({"learner": "maml"}, r"there and missing here \(it is a protonet, this is a maml\)|missing there"),
        ({"backbone": "raw", "backbone_options": {}}, "there and missing here"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_written(species, first, tmp_path, change, named):
    with pytest.raises(UserError, match=f"The weights of .*first do not fit: .*{named}"):
        train(replace(species, warm_start=first, **change), tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_inputs_of_other_columns_are_refused(species, first, tmp_path):
    """Their number alone would fit."""
    lines = (tmp_path / "species.csv").read_text().splitlines()
    other = tmp_path / "other.csv"
    other.write_text("\n".join([lines[0].replace("x1", "stature"), *lines[1:]]))
    there = replace(species, source=replace(species.source, tasks=str(other)), warm_start=first)
    with pytest.raises(UserError, match=r"do not fit: its inputs are .* those of this training are .*stature"):
        train(there, tmp_path / "second")


def test_a_run_does_not_go_on_from_other_weights(species, first, tmp_path):
    warm = replace(species, warm_start=first)
    train(warm, tmp_path / "second")
    train(replace(species, settings=SETTINGS | {"outer_lr": 0.1}), tmp_path / "first", force=True)
    with pytest.raises(UserError, match="start: was"):
        train(warm, tmp_path / "second", resume=True)


def test_test_classes_that_the_weights_were_trained_on_are_told(species, first, tmp_path):
    elsewhere = replace(species, seed=1, source=replace(species.source, seed=1), warm_start=first)
    with noted(r"were trained on examples of \d+ names of the test split"):
        train(elsewhere, tmp_path / "second")


def test_what_holds_no_model_is_refused(species, tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        train(replace(species, warm_start=str(tmp_path / "absent")), tmp_path / "second")


def test_the_command_takes_it_and_spells_it_in_its_errors(first, species, tmp_path):
    options = ["train", "--tasks", species.source.tasks, "--label", "kind", "--backbone", "mlp", "--shot", "2"]
    options += ["--learner", "protonet"]
    options += ["--way", "2", "--query-shot", "3", "--steps", "1", "--from", first, "-o", str(tmp_path / "second")]
    options += ["--set", "training.validation_tasks=2"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 2
    assert "remove --from" in result.stderr
    result = CliRunner().invoke(app, [*options, "--set", "backbone.hidden=[4]"])
    assert result.exit_code == 0, result.output
    assert Run(tmp_path / "second").config()["warm_start"] == first
