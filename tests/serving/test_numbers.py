"""One number is one number, however it is written."""

import numpy as np
import pytest

from handful import Service
from handful.errors import DataError
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.pipelines.arrays import ArrayPipeline
from handful.serving.ids import Ids
from handful.serving.inputs import written
from handful.serving.supports import added, corrected, labeled
from handful.types import TaskSpec
from serving.worlds import classifier

WRITTEN = ([1, 2, 0], [1.0, 2.0, -0.0], np.array([1, 2, 0], np.uint8), np.array([1, 2, 0], np.float32))


@pytest.mark.parametrize("again", WRITTEN[1:], ids=["floats", "bytes", "array"])
def test_a_correction_finds_an_input_however_its_numbers_are_written(tmp_path, again):
    with Service(classifier(), tmp_path / "store") as service:
        task = service.create("shelf", [WRITTEN[0], [3, 4, 5]], ["a", "b"])
        now = service.correct(task.id, [again], ["c"])
        assert (now.head.examples, now.head.labels) == (2, ("b", "c"))
        assert service.add(task.id, [again, [3.0, 4.0, 5.0]], ["c", "b"]).head == now.head
        with pytest.raises(DataError) as error:
            service.add(task.id, [again], ["a"])
        assert error.value.code == "contradictory-labels"


def test_a_model_of_images_sees_other_things_in_whole_numbers_than_in_floats():
    pipeline = ArrayPipeline(raw_shape=(2, 2), images=True)
    spec = TaskSpec("classification", pipeline.input_shape, 2, "permuted")
    model = MetaModel(PrototypicalNetwork.build(spec, backbone="linear"), pipeline)

    def example(array, label):
        return labeled(model, [array], [label], Ids())

    whole, floats = np.ones((2, 2), np.int64), np.ones((1, 2, 2), np.float32)
    both = added(example(whole, "black"), example(floats, "white"), classification=True)
    assert [one.label for one in both] == ["black", "white"]
    again = corrected(both, example(whole.astype(np.uint8), "gray"))
    assert [one.label for one in again] == ["white", "gray"]


def test_cells_are_kept_alike():
    assert written({"a": 1.0, "b": -0.0, "c": 1.5}) == written({"a": 1, "b": 0, "c": 1.5})
    assert written({"a": True}) != written({"a": 1})
    assert b"e+300" in written({"a": 1e300}).content


def test_numbers_that_would_change_are_refused():
    with pytest.raises(DataError, match="63 bits") as error:
        written(np.array([2**63], np.uint64), 4)
    assert error.value.field == ("inputs", 4)
    assert written(np.array([2**63 - 1], np.uint64)) == written([2**63 - 1])
