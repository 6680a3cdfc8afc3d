"""Arguments that several commands take."""

from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from handful.cli.options import COLUMNS, DATA, assignments, source_of, takes
from handful.errors import UserError


def given(options: dict[str, Any], *arguments: str) -> dict[str, Any]:
    """What the function of a command with these options gets."""
    app, got = typer.Typer(), {}

    @app.command()
    @takes(options)
    def command(
        subject: Annotated[str, typer.Argument()], data: dict[str, Any], way: Annotated[int, typer.Option()] = 5
    ) -> None:
        """A command."""
        got.update(subject=subject, data=data, way=way)

    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return got


def test_options_of_the_data_come_as_one_value():
    got = given(DATA, "photos", "--way", "3", "--drop", "a", "--drop", "b", "--image-size", "28", "--split-by", "city")
    data = dict.fromkeys(DATA) | {"drop": ["a", "b"], "image_size": 28, "split_by": "city"}
    assert got == {"subject": "photos", "way": 3, "data": data}
    assert given(COLUMNS, "photos", "--label", "kind")["data"] == dict.fromkeys(COLUMNS) | {"label": "kind"}
    with pytest.raises(AssertionError, match="No such option"):
        given(COLUMNS, "photos", "--encoder", "minilm")


def test_a_source_is_named_by_its_whole_path(tmp_path, monkeypatch):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "pool.csv").touch()
    monkeypatch.chdir(tmp_path)
    data = given(DATA, "x", "--label", "kind", "--encoder", "encoder", "--drop", "a")["data"]
    source = source_of("pool.csv", data, seed=3)
    assert (source.tasks, source.encoder) == (str(tmp_path / "pool.csv"), str(tmp_path / "encoder"))
    assert (source.label, source.drop, source.seed) == ("kind", ("a",), 3)
    generator = source_of("sine", given(DATA, "x", "--encoder", "minilm")["data"])
    assert (generator.tasks, generator.encoder, generator.drop, generator.seed) == ("sine", "minilm", (), 0)
    assert source_of("sine", given(COLUMNS, "x")["data"]) == source_of("sine", given(DATA, "x")["data"])


def test_assignments_are_sorted_by_part_and_read_as_json_or_text():
    given = ["inner_lr=0.05", "head=slots", "backbone.hidden=[8]", "training.plan=loop", "a=NaN", "b=x=y", "c="]
    assert assignments(given) == {
        "": {"inner_lr": 0.05, "head": "slots", "a": "NaN", "b": "x=y", "c": ""},
        "backbone": {"hidden": [8]},
        "training": {"plan": "loop"},
    }
    assert assignments(None) == {"": {}, "backbone": {}, "training": {}}


@pytest.mark.parametrize(
    ("text", "said"), [("inner", "takes NAME=VALUE"), ("=3", "takes NAME=VALUE"), ("backbon.x=3", "'backbone'")]
)
def test_an_assignment_that_cannot_be_read_is_named(text, said):
    with pytest.raises(UserError, match=said):
        assignments([text])
