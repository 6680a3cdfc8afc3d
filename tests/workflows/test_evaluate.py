"""Evaluating a run: its network is built for the ladder, too."""

import pytest

import own_data
from handful.errors import ArtifactError
from handful.storage import read_json, write_json
from handful.workflows.cross_validation import cross_validate
from handful.workflows.evaluate import evaluate
from handful.workflows.experiment import Experiment, Source
from handful.workflows.train import train


@pytest.mark.parametrize(
    ("network", "noun"),
    [
        ({"backbone": "somewhere.networks:own"}, "backbone"),
        ({"backbone": "encoder", "backbone_options": {"what": "texts", "name": "somewhere.networks:own"}}, "encoder"),
    ],
)
def test_a_network_that_only_the_configuration_names_needs_trust(network, noun, tmp_path):
    """As where a method on raw inputs won a race: its model has no network."""
    source = Source(str(own_data.species(tmp_path / "species.csv")), label="kind")
    settings = {"steps": 2, "meta_batch_size": 2, "validation_tasks": 2}
    run = tmp_path / "run"
    train(Experiment(source, "protonet", way=2, query_shot=3, settings=settings), run)
    write_json(run / "config.json", read_json(run / "config.json") | network)
    told = f"The {noun} 'somewhere.networks:own' is not a part of handful"
    with pytest.raises(ArtifactError, match=told):
        evaluate(run, tasks=10, minutes=0, curve=False)
    with pytest.raises(ArtifactError, match=told):
        cross_validate(run, 2, tmp_path / "folds")
    assert not (tmp_path / "folds").exists()
