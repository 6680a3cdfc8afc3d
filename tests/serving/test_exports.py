"""Tasks leave as the library's files, and come in from them."""

from dataclasses import replace

import pytest
import torch

from handful import AdaptedTask, Service
from handful.errors import ArtifactError, UserError
from handful.types import Examples
from serving.oracle import check
from serving.worlds import classifier, points, regressor


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("make", [classifier, regressor])
def test_an_exported_task_is_the_library_s_and_comes_back(tmp_path, place, make, keep):
    model = make()
    labels = ["a", "b", "b"] if model.spec.classification else [1.0, 2.0, 3.0]
    with Service(model, tmp_path / "one") as one, Service(model, place) as other:
        task = one.create("shelf", points(1, 2, 3), labels, keep_examples=keep)
        content = one.export(task.id)
        file = AdaptedTask.from_bytes(content)
        library = model.adapt(torch.tensor(points(1, 2, 3)), labels)
        assert file == library
        assert (file.support is not None) == keep
        there = other.import_task("came in", content)
        assert (there.keep_examples, there.head.change, there.head.digest) == (keep, "imported", task.head.digest)
        assert other.predict(there.id, points(9)).predictions == one.predict(task.id, points(9)).predictions
        if keep:
            more = "c" if model.spec.classification else 4.0
            assert other.add(there.id, points(4), [more]).head.examples == 4
            corrected = other.correct(there.id, points(1), [more])
            assert corrected.head.examples == 4
            assert other.export(there.id) != content
            assert one.export(task.id, version=1) == content
            assert [tuple(one.input.shape) for one in other.examples(there.id, 1)] == [(3,)] * 3
        check(other)


def test_what_is_no_task_of_a_model_here_is_refused(tmp_path):
    with Service(classifier(), tmp_path / "store") as service:
        with pytest.raises(ArtifactError):
            service.import_task("shelf", b"nothing")
        foreign = classifier(seed=1).adapt(torch.tensor(points(1, 2)), ["a", "b"])
        with pytest.raises(ArtifactError, match="lacks the model"):
            service.import_task("shelf", foreign.to_bytes())
        own = service._states.models["default"].adapt(torch.tensor(points(1, 2)), ["a\u202e", "b"])
        with pytest.raises(UserError, match="control"):
            service.import_task("shelf", own.to_bytes())
        assert service.tasks() == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"examples": 1}, "another shape|not those of its examples"),
        ({"examples": -1, "support": None, "manifest": None}, "no examples"),
        ({"labels": ("a",)}, "labels"),
        ({"labels": ("a", 5)}, "labels"),
        ({"labels": None}, "labels"),
        ({"labels": ("a", "b", "c"), "support": None, "manifest": None}, "labels"),
        ({"manifest": None}, "ids"),
        ({"manifest": ("1",)}, "ids"),
        ({"groups": ("1",)}, "groups"),
        ({"rows": ({},)}, "rows"),
        ({"rows": ("a", "b")}, "rows"),
        ({"support": Examples(torch.zeros(2, 3), torch.tensor([0, 2]))}, "classes"),
        ({"support": Examples(torch.zeros(2, 3), torch.tensor([0, -1]))}, "classes"),
        ({"support": Examples(torch.zeros(2, 3), torch.tensor([0.0, 1.0]))}, "classes"),
        ({"support": Examples(torch.zeros(2, 3), torch.tensor([[0], [1]]))}, "shape"),
        ({"support": Examples(torch.zeros(2, 4), torch.tensor([0, 1]))}, "shape"),
        ({"support": Examples(torch.zeros(0, 3), torch.zeros(0).long())}, "shape"),
    ],
)
def test_a_file_whose_parts_contradict_one_another_is_refused(wrong, said):
    made = classifier().adapt(torch.tensor(points(1, 2)), ["a", "b"])
    assert AdaptedTask.from_bytes(made.to_bytes()) == made
    with pytest.raises(ArtifactError, match=said) as error:
        AdaptedTask.from_bytes(replace(made, **wrong).to_bytes(), source="shelf.task")
    assert error.value.message.startswith("shelf.task is incomplete")
