"""Candidates of a race that are pre-trained alone: in which precision, and on what."""

import pytest
import torch

import own_data
from handful.registry import LEARNERS
from handful.storage import digest_of, read_json, read_tensors
from handful.streams import seeded
from handful.tasks.labeled_pool import LabeledPool
from handful.training.run import Run
from handful.workflows import auto as workflow
from handful.workflows import race_pretrained
from handful.workflows.auto import auto
from handful.workflows.experiment import Experiment, Source
from handful.workflows.race_entrants import Track
from handful.workflows.race_pretrained import Pretrained
from handful.workflows.race_record import RaceRecord


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Experiment:
    """Of images on which a network is pre-trained for three steps."""
    monkeypatch.setattr(workflow, "candidates", lambda race, tasks: [LEARNERS["pretrained"]])
    monkeypatch.setattr(race_pretrained, "examples_within", lambda *arguments, **options: 384)
    source = Source(str(own_data.photos(tmp_path / "photos", classes=20)), image_size=16)
    options = {"backbone": "conv4", "backbone_options": {"widths": [4, 4, 4, 4]}}
    return Experiment(source, way=3, shot=2, query_shot=2, settings={"minutes": 0.1}, **options)


@pytest.mark.slow
def test_the_precision_that_was_found_quicker_is_recorded_and_used_again(photos, tmp_path, monkeypatch):
    bits = {}
    for precision in ("fp32", "bf16"):
        monkeypatch.setattr(race_pretrained, "quicker_precision", lambda *arguments, found=precision, **more: found)
        auto(photos, tmp_path / precision)
        decided = read_json(tmp_path / precision / "race.json")["decided"]
        assert decided["precision of the pre-training of pretrained"] == precision
        bits[precision] = digest_of(read_tensors(tmp_path / precision / "model" / "model.safetensors")[0])
    monkeypatch.setattr(race_pretrained, "quicker_precision", lambda *arguments, **more: pytest.fail("it is known"))
    auto(photos, tmp_path / "again", budget_from=tmp_path / "bf16")
    again = digest_of(read_tensors(tmp_path / "again" / "model" / "model.safetensors")[0])
    assert again == bits["bf16"] != bits["fp32"]


@pytest.mark.parametrize(("channels", "changed"), [(1, False), (3, True)])
def test_images_in_color_alone_are_changed_in_pre_training(channels, changed, photos, tmp_path):
    images = torch.rand(60, channels, 16, 16, generator=seeded(1))
    splits = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}
    tasks = photos.tasks(LabeledPool(images, torch.arange(60) // 5, [*"abcdefghijkl"], splits=splits))
    record, run = RaceRecord(tmp_path / "race.json", 1.0), Run(tmp_path)
    track = Track(photos, tasks, tasks.split("val"), run, record, lambda event: None, None)
    plain, seen = (
        pool.draw(seeded(0), 16)
        for pool in (tasks.split("train").pool(), Pretrained(LEARNERS["pretrained"], track).pool)
    )
    assert torch.equal(seen.targets, plain.targets)
    assert torch.equal(seen.inputs, plain.inputs) != changed
