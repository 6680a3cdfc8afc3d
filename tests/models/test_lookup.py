"""Meta-models are found by the digest that a task names."""

import os
import sys

import pytest
import torch

from handful.errors import ArtifactError
from handful.models.lookup import model_of, remember
from models.test_meta_model import examples, model
from noted import noted


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))


def test_a_model_is_found_beside_its_task_in_its_run_or_where_it_was_last(tmp_path):
    meta = model()
    task = meta.adapt(*examples())
    with pytest.raises(ArtifactError, match=r"was not found beside it, nor at its last path.*model="):
        model_of(task, tmp_path / "tasks" / "task")
    run = tmp_path / "run"
    meta.save_pretrained(run / "model")
    for near in (run / "task", run / "model" / "task", run / "tasks" / "task"):
        assert model_of(task, near).digest == meta.digest
    remember(meta)
    assert model_of(task, tmp_path / "elsewhere" / "task").digest == meta.digest
    assert model_of(task).digest == meta.digest


def test_another_model_in_that_place_is_not_taken(tmp_path):
    meta, other = model(), model()
    task = meta.adapt(*examples())
    meta.save_pretrained(tmp_path / "model")
    remember(meta)
    other.save_pretrained(tmp_path / "model")
    with pytest.raises(ArtifactError, match="was not found"):
        model_of(task, tmp_path / "task")
    with pytest.raises(ArtifactError, match="another meta-model"):
        model_of(task, given=tmp_path / "model")
    meta.save_pretrained(tmp_path / "moved")
    found = model_of(task, tmp_path / "task", given=tmp_path / "moved")
    assert torch.equal(found.predict(task, torch.ones(1, 4)).logits, meta.predict(task, torch.ones(1, 4)).logits)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_utf8_is_found_again(tmp_path):
    meta = model()
    meta.save_pretrained(tmp_path / os.fsdecode(b"caf\xe9"))
    remember(meta)
    assert model_of(meta.adapt(*examples())).digest == meta.digest


def test_a_cache_that_cannot_be_written_is_noted(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "file"))
    meta = model()
    meta.save_pretrained(tmp_path / "model")
    with noted("Cannot write .*file.* For a task that is not near its model, name the model's path"):
        remember(meta)
