"""Options of the user's data are written once, and each face has all of them."""

import inspect
from dataclasses import fields

import pytest

from handful.cli.flags import flag
from handful.cli.options import COLUMNS, DATA
from handful.data_options import OF_PIPELINE, DataOptions
from handful.errors import UserError
from handful.tasks.opening import open_tasks
from handful.workflows.experiment import Experiment, Source

NAMES = [option.name for option in fields(DataOptions)]


def test_each_face_has_all_options():
    assert [*DATA] == [*NAMES, "no_limits"]
    assert set(NAMES) - set(COLUMNS) == {
        "encoder",
        "tune_encoder",
        "long_texts",
        "split_by",
        "test",
        "inputs",
        "image_size",
    }, "which a model has settled"
    assert set(NAMES) < {option.name for option in fields(Source)}
    assert not set(NAMES) & set(inspect.signature(open_tasks).parameters), "by its keywords"


def test_columns_to_drop_may_be_in_a_list():
    experiment = Experiment(Source("x.csv", drop=["a", "b"]))
    assert experiment.source.drop == ("a", "b")
    assert Experiment.from_config(experiment.config()) == experiment
    assert Source("x", drop=None).drop == ()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"decimal": ";"}, "The decimal mark is '.' or ',', not ';'. Change --decimal, or remove it."),
        ({"dates": "ymd"}, "The order of day and month is 'dmy' or 'mdy', not 'ymd'. Change --dates, or remove it."),
        ({"image_size": 0}, "The image size is at least 1 pixel, not 0. Change --image-size."),
    ],
)
def test_a_value_that_means_nothing_is_told_with_its_option(option, message):
    with pytest.raises(UserError) as raised:
        DataOptions(**option)
    assert raised.value.spelled(flag) == message


def test_an_option_that_there_is_not_is_told_with_the_nearest(tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n1,a\n")
    with pytest.raises(UserError, match=r"option of the data 'lable'.*'?label"):
        open_tasks(tmp_path / "t.csv", lable="y")


def test_what_a_model_has_settled_is_of_its_pipeline_or_of_the_splits():
    settled = {option.name for option in fields(DataOptions) if option.metadata["settled"]}
    assert settled == {*OF_PIPELINE, "split_by", "test"}
    given = DataOptions(encoder="e", long_texts="mean", inputs="raw", image_size=8, split_by="s", label="l")
    assert given.left_open() == DataOptions(split_by="s", label="l")
